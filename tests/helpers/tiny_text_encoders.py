"""ComfyUI's own text encoders and tokenizers at tiny sizes with random weights, as real CLIP objects."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

LAYERS, WIDTH = 3, 32
T5 = {"num_layers": LAYERS, "d_model": WIDTH, "d_ff": 48, "d_kv": 8, "num_heads": 4, "vocab_size": 32128}
LLAMA = {
    "num_hidden_layers": LAYERS,
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
CLIP_TEXT = {"num_hidden_layers": LAYERS, "hidden_size": WIDTH, "intermediate_size": 48, "num_attention_heads": 4}


def tiny_clip(kind: str, *, seed: int = 0) -> Any:
    """A CLIP of one of `KINDS`, as a loader gives it."""
    import comfy.sd
    from comfy.supported_models_base import ClipTarget

    tokenizer, model, key, sizes, tokens = KINDS[kind]()
    target = ClipTarget(tokenizer, model)
    options = {f"{key}_model_config": sizes}
    clip = comfy.sd.CLIP(target, model_options=options, tokenizer_data=tokens)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in clip.cond_stage_model.named_parameters():
            values = torch.randn(weight.shape, generator=generator)
            small = values.mul(0.1).add("norm" in name) if weight.ndim < 2 else values * weight.shape[-1] ** -0.5
            weight.copy_(values if "embed" in name or "shared" in name else small)
    return clip


@cache
def _sentence_pieces() -> torch.Tensor:
    """A SentencePiece model in the layout of Gemma's and umT5's: pad, end, begin, unknown; then pieces and bytes."""
    import sentencepiece

    model = io.BytesIO()
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


def _clip_l() -> Any:
    from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer

    return SD1Tokenizer, SD1ClipModel, "clip_l", CLIP_TEXT, {}


def _ltxv_t5() -> Any:
    from comfy.text_encoders.lt import LTXVT5Tokenizer, ltxv_te

    return LTXVT5Tokenizer, ltxv_te(), "t5xxl", T5, {}


def _wan_umt5() -> Any:
    from comfy.text_encoders.wan import WanT5Tokenizer, te

    return WanT5Tokenizer, te(), "umt5xxl", {**T5, "vocab_size": 400}, {"spiece_model": _sentence_pieces()}


def _z_image_qwen() -> Any:
    from comfy.text_encoders.z_image import ZImageTokenizer, te

    return ZImageTokenizer, te(), "qwen3_4b", LLAMA, {}


def _left_padded_gemma() -> Any:
    """Gemma 3 4B with the padding that LTX-2 gives Gemma 3 12B, whose own class has a picture tower of fixed size."""
    from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer
    from comfy.text_encoders.lumina2 import Gemma3_4BModel, Gemma3_4BTokenizer

    class PaddedTokenizer(Gemma3_4BTokenizer):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.min_length, self.pad_left = 40, True

    class Tokenizer(SD1Tokenizer):
        def __init__(self, **options: Any) -> None:
            super().__init__(name="gemma3_4b", tokenizer=PaddedTokenizer, **options)

    class Gemma(SD1ClipModel):
        def __init__(self, **options: Any) -> None:
            super().__init__(name="gemma3_4b", clip_model=Gemma3_4BModel, **options)

    return Tokenizer, Gemma, "gemma3_4b", {**LLAMA, "vocab_size": 400}, {"spiece_model": _sentence_pieces()}


KINDS: dict[str, Callable[[], Any]] = {
    "clip_l": _clip_l,
    "t5xxl": _ltxv_t5,
    "umt5xxl": _wan_umt5,
    "qwen3_4b": _z_image_qwen,
    "gemma3_4b": _left_padded_gemma,
}
