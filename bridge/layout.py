"""Token layouts: which tokens of a block's sequence are generated, and so may be edited.

One function per layout, named in the model map. It sees the arguments of one model call and answers with a TokenRange:
reference, guide and start-frame tokens are never edited.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, eq=False)
class TokenRange:
    """`count` tokens from `start` on; of these only those where `mask` (B or 1, count, 1) holds, or all if None."""

    start: int
    count: int
    mask: torch.Tensor | None = None


def wan(model: Any, x: torch.Tensor, arguments: Mapping[str, Any]) -> TokenRange:
    """Wan: [reference image] video [appended frames, context latents]; start-frame tokens have denoise mask 0."""
    count = math.prod(_patches(x, model.patch_size))
    reference = arguments.get("reference_latent")
    start = 0
    if model.ref_conv is not None and reference is not None:
        start = math.prod(_patches(reference, model.patch_size[1:]))
    return TokenRange(start, count, _denoised(arguments.get("denoise_mask"), model.patch_size))


def ltxv(model: Any, x: torch.Tensor, arguments: Mapping[str, Any]) -> TokenRange:
    """LTXV: video, then guide frames; tokens with a negative denoise mask are taken out of the sequence."""
    count = math.prod(x.shape[2:])
    mask = arguments.get("denoise_mask")
    guides = arguments.get("keyframe_idxs")
    if guides is None or guides.shape[2] == 0:
        return TokenRange(0, count, _denoised(mask, (1, 1, 1)))
    assert mask is not None  # the model itself needs it to place guides
    tokens = mask[:, :1].flatten(1)
    video = torch.arange(count, device=tokens.device) < count - guides.shape[2]
    editable = (tokens > 0) & video
    kept = tokens[0] >= 0
    return TokenRange(0, int(kept.sum()), editable[:, kept, None])


def flux(model: Any, x: torch.Tensor, arguments: Mapping[str, Any]) -> TokenRange:
    """Flux: image, then reference images."""
    return TokenRange(0, math.prod(_patches(x, (model.patch_size, model.patch_size))))


LAYOUTS: dict[str, Callable[[Any, torch.Tensor, Mapping[str, Any]], TokenRange]] = {
    "wan": wan,
    "ltxv": ltxv,
    "flux": flux,
}


def editable_states(states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Which rows of conditioning states (B, N, D) may be edited: (B, N, 1) boolean.

    Not those that are exactly zero (umT5's padding, ConditioningZeroOut), nor those outside of the model's own mask
    (B, N), if it takes one.
    """
    rows = (states != 0).any(dim=-1, keepdim=True)
    if mask is not None and mask.numel() == states.shape[0] * states.shape[1]:
        rows = rows & (mask.reshape(*states.shape[:2], 1) > 0)
    return rows


def _patches(x: torch.Tensor, patch: tuple[int, ...]) -> list[int]:
    return [math.ceil(size / step) for size, step in zip(x.shape[-len(patch) :], patch, strict=True)]


def _denoised(mask: torch.Tensor | None, patch: tuple[int, ...]) -> torch.Tensor | None:
    """A latent's denoise mask (B, C, T, H, W) as a token mask: a patch counts if any of it is generated."""
    if mask is None:
        return None
    pooled = torch.nn.functional.max_pool3d(mask[:, :1].float(), patch, stride=patch, ceil_mode=True)
    return pooled.flatten(1)[..., None] > 0
