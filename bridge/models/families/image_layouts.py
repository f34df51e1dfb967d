"""Token layouts of the image families.

An image at the end of a sequence is counted from the end, because the tokens before it may be padded, repeated or, for
a cached prefix, missing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from ..tokens import Layout, TokenRange, editable_states, patches

Arguments = Mapping[str, Any]


def _tokens(x: torch.Tensor, patch: int) -> int:
    """Tokens of latents (B, C, H, W) or (B, C, T, H, W), cut into square patches; begun ones included."""
    return math.prod(x.shape[2:-2]) * math.prod(patches(x, (patch, patch)))


def _text(x: torch.Tensor, arguments: Arguments, start: int = 0, mask: str = "") -> TokenRange:
    """The rows of the conditioning states, from token `start` on."""
    states, kept = arguments["c_crossattn"].to(x.device), arguments.get(mask)
    return TokenRange(start, states.shape[1], editable_states(states, None if kept is None else kept.to(x.device)))


def _patch(model: Any) -> int:
    size = getattr(model, "patch_size", 0) or model.patch
    return int(size if isinstance(size, int) else size[-1])


def image_last(model: Any, x: torch.Tensor, arguments: Arguments) -> Layout:
    """Text and reference images, if there are any, then the image in patches."""
    size = _tokens(x, _patch(model))
    return {"image": TokenRange(-size, size)}


def grid_last(model: Any, x: torch.Tensor, arguments: Arguments) -> Layout:
    """Text, if there is any, then the image, one token a latent pixel. The text may be absent altogether."""
    size = _tokens(x, 1)
    layout = {"image": TokenRange(-size, size)}
    return layout if arguments.get("c_crossattn") is not None else layout | {"text": TokenRange(0, 0)}


def references_last(model: Any, x: torch.Tensor, arguments: Arguments) -> Layout:
    """Text, if there is any, the image, then its reference images (Kontext, Qwen-Image-Edit)."""
    patch = _patch(model)
    size = _tokens(x, patch)
    references = sum(_tokens(latent, patch) for latent in arguments.get("ref_latents") or ())
    return {"image": TokenRange(-size - references, size)}


def krea2(model: Any, x: torch.Tensor, arguments: Arguments) -> Layout:
    """Krea 2: reference images count only if a way to place them was chosen."""
    method = arguments.get("ref_latents_method", model.default_ref_method)
    return (image_last if method is None else references_last)(model, x, arguments)


def sd3(model: Any, x: torch.Tensor, arguments: Arguments) -> Layout:
    """SD3: the text stream holds the rows of CLIP and of T5."""
    return image_last(model, x, arguments) | {"text": _text(x, arguments)}


def lumina(model: Any, x: torch.Tensor, arguments: Arguments) -> Layout:
    """Lumina 2, Z-Image: [captions of reference images] caption, then [reference images] image, each of them padded."""
    multiple = model.pad_tokens_multiple or 1

    def padded(count: int) -> int:
        return math.ceil(count / multiple) * multiple

    captions = list(arguments.get("ref_contexts") or ())
    before = sum(
        padded(captions[i].shape[1]) if i < len(captions) else multiple
        for i in range(len(arguments.get("ref_latents") or ()))
    )
    size = _tokens(x, _patch(model))
    return {"image": TokenRange(-padded(size), size), "text": _text(x, arguments, before, mask="attention_mask")}


def aura(model: Any, x: torch.Tensor, arguments: Arguments) -> Layout:
    """AuraFlow: the text stream begins with register tokens."""
    return image_last(model, x, arguments) | {"text": _text(x, arguments, start=model.register_tokens.shape[1])}


def hidream(model: Any, x: torch.Tensor, arguments: Arguments) -> Layout:
    """HiDream: image [beside it, row by row, the image to edit]; text: T5, Llama, and Llama once more for one block."""
    patch = _patch(model)
    states, llama = arguments["c_crossattn"], arguments["encoder_hidden_states_llama3"]
    text = TokenRange(0, states.shape[1] + llama.shape[-2])
    beside = arguments.get("image_cond")
    if beside is None:
        return {"image": TokenRange(0, _tokens(x, patch)), "text": text}
    rows, columns = patches(x, (patch, patch))
    wide = math.ceil((x.shape[-1] + beside.shape[-1]) / patch)
    mask = (torch.arange(wide, device=x.device) < columns).repeat(rows)[None, :, None]
    return {"image": TokenRange(0, rows * wide, mask), "text": text}


def hidream_o1(model: Any, x: torch.Tensor, arguments: Arguments) -> Layout:
    """HiDream-O1: [prompt, unless its keys are cached] image [patches of reference images]."""
    size = _tokens(x, model.patch_size)
    references = arguments.get("ref_patches")
    return {"image": TokenRange(-size - (0 if references is None else references.shape[1]), size)}


def image_first(model: Any, x: torch.Tensor, arguments: Arguments) -> Layout:
    """The image in patches, then the text."""
    return {"image": TokenRange(0, _tokens(x, _patch(model)))}


def sd3_t5(model: Any, states: torch.Tensor) -> tuple[torch.Tensor, slice]:
    """The rows of T5: those of CLIP are filled up with zeros to T5's width."""
    return (states[..., SD3_CLIP_WIDTH:] != 0).any(dim=-1, keepdim=True), slice(None)


def sd3_clip(model: Any, states: torch.Tensor) -> tuple[torch.Tensor, slice]:
    """The rows of CLIP, without the zeros behind them."""
    return ~sd3_t5(model, states)[0], slice(SD3_CLIP_WIDTH)


SD3_CLIP_WIDTH = 2048  # CLIP-L and CLIP-G side by side: 768 + 1280

IMAGE_LAYOUTS = {
    "aura": aura,
    "grid_last": grid_last,
    "hidream": hidream,
    "hidream_o1": hidream_o1,
    "image_first": image_first,
    "image_last": image_last,
    "krea2": krea2,
    "lumina": lumina,
    "references_last": references_last,
    "sd3": sd3,
}
IMAGE_PARTS = {"sd3_clip": sd3_clip, "sd3_t5": sd3_t5}
