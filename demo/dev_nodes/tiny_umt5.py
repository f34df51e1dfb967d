"""Wan's own text encoder at a tiny size with random weights, as a real CLIP: the stock loader takes no other size."""

from __future__ import annotations

import io as files
from functools import cache
from typing import Any

import torch
from comfy_api.latest import io

SIZES = {"num_layers": 3, "d_model": 4096, "d_ff": 16, "d_kv": 8, "num_heads": 4, "vocab_size": 400}


class TinyUmT5(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SafetySteeringDev_TinyUmT5",
            display_name="Tiny umT5 (development)",
            category="Safety Steering/development",
            description="For tests only. ComfyUI's class of Wan's text encoder with three layers of random weights.",
            inputs=[],
            outputs=[io.Clip.Output()],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(tiny_umt5())


def tiny_umt5(seed: int = 0) -> Any:
    """A CLIP as a loader gives it."""
    import comfy.sd
    from comfy.supported_models_base import ClipTarget
    from comfy.text_encoders.wan import WanT5Tokenizer, te

    options = {"umt5xxl_model_config": SIZES}
    tokens = {"spiece_model": sentence_pieces()}
    clip = comfy.sd.CLIP(ClipTarget(WanT5Tokenizer, te()), model_options=options, tokenizer_data=tokens)
    fill(clip, seed)
    return clip


def fill(clip: Any, seed: int) -> None:
    """Give a CLIP random weights of usual sizes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in clip.cond_stage_model.named_parameters():
            values = torch.randn(weight.shape, generator=generator)
            small = values.mul(0.1).add("norm" in name) if weight.ndim < 2 else values * weight.shape[-1] ** -0.5
            weight.copy_(values if "embed" in name or "shared" in name else small)


@cache
def sentence_pieces() -> torch.Tensor:
    """A SentencePiece model in the layout of Gemma's and umT5's: pad, end, begin, unknown; then pieces and bytes."""
    import sentencepiece

    model = files.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a small tree by the river", "the dog runs up a hill", "men and women at sea"] * 20),
        model_writer=model,
        vocab_size=300,
        byte_fallback=True,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        minloglevel=2,
    )
    return torch.frombuffer(bytearray(model.getvalue()), dtype=torch.uint8)
