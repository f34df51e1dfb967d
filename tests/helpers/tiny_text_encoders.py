"""ComfyUI's own text encoders and tokenizers at tiny sizes with random weights, as real CLIP objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
    from dev_nodes.tiny_umt5 import fill

    tokenizer, model, key, sizes, tokens = KINDS[kind]()
    target = ClipTarget(tokenizer, model)
    options = {f"{key}_model_config": sizes}
    clip = comfy.sd.CLIP(target, model_options=options, tokenizer_data=tokens)
    fill(clip, seed)
    return clip


def _clip_l() -> Any:
    from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer

    return SD1Tokenizer, SD1ClipModel, "clip_l", CLIP_TEXT, {}


def _ltxv_t5() -> Any:
    from comfy.text_encoders.lt import LTXVT5Tokenizer, ltxv_te

    return LTXVT5Tokenizer, ltxv_te(), "t5xxl", T5, {}


def _wan_umt5() -> Any:
    from comfy.text_encoders.wan import WanT5Tokenizer, te
    from dev_nodes.tiny_umt5 import sentence_pieces

    return WanT5Tokenizer, te(), "umt5xxl", {**T5, "vocab_size": 400}, {"spiece_model": sentence_pieces()}


def _z_image_qwen() -> Any:
    from comfy.text_encoders.z_image import ZImageTokenizer, te

    return ZImageTokenizer, te(), "qwen3_4b", LLAMA, {}


def _left_padded_gemma() -> Any:
    """Gemma 3 4B with the padding that LTX-2 gives Gemma 3 12B, whose own class has a picture tower of fixed size."""
    from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer
    from comfy.text_encoders.lumina2 import Gemma3_4BModel, Gemma3_4BTokenizer
    from dev_nodes.tiny_umt5 import sentence_pieces

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

    return Tokenizer, Gemma, "gemma3_4b", {**LLAMA, "vocab_size": 400}, {"spiece_model": sentence_pieces()}


KINDS: dict[str, Callable[[], Any]] = {
    "clip_l": _clip_l,
    "t5xxl": _ltxv_t5,
    "umt5xxl": _wan_umt5,
    "qwen3_4b": _z_image_qwen,
    "gemma3_4b": _left_padded_gemma,
}
