"""Token layouts: which tokens of a sequence may be edited, and tensors of any layout seen as sequences (B, N, D).

Reference, guide, padding and start-frame tokens are never edited. The families' own layouts are in `families`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, eq=False)
class TokenRange:
    """`count` tokens from `start` on, None: all; of these only those where `mask` (B or 1, count, 1) holds.

    start: negative if counted from the end of the whole sequence.
    length: tokens of the whole stream, where another stream follows; None: up to the end of the range.
    frame: tokens of one latent frame, if the range consists of whole frames; else None.
    """

    start: int
    count: int | None
    mask: torch.Tensor | None = None
    length: int | None = None
    frame: int | None = None

    def within(self, tokens: int) -> tuple[int, int]:
        """Start and end in a sequence of `tokens` tokens."""
        start = self.start if self.start >= 0 else tokens + self.start
        return start, tokens if self.count is None else start + self.count

    @property
    def span(self) -> int:
        """Tokens of the whole stream."""
        if self.length is not None:
            return self.length
        assert self.count is not None  # a row with streams in one tensor needs a layout that counts them
        return self.start + self.count


# Where the generated tokens are in each stream, counted from the stream's own first token. A layout function sees the
# diffusion model, the noisy latents and apply_model's arguments by name. A text stream that it does not name is the
# sequence of the conditioning states.
Layout = Mapping[str, TokenRange]
LayoutFunction = Callable[[Any, torch.Tensor, Mapping[str, Any]], Layout]

# Which rows (B or 1, N, 1; None: all) and channels of a conditioning argument (B, N, D) belong to one part of it.
PartFunction = Callable[[Any, torch.Tensor], tuple[torch.Tensor | None, slice]]


def to_sequence(h: torch.Tensor, dims: str) -> torch.Tensor:
    """`h` as (B, N, D); `dims` names its dims as in the model map ("BTHWD", "BDHW", ...)."""
    if dims == "BND":
        return h
    return h.permute(_order(dims)).flatten(1, -2)


def from_sequence(sequence: torch.Tensor, like: torch.Tensor, dims: str) -> torch.Tensor:
    """The inverse of `to_sequence`: `sequence` in the shape of `like`."""
    if dims == "BND":
        return sequence
    order = _order(dims)
    spread = sequence.unflatten(1, [like.shape[i] for i in order[1:-1]])
    return spread.permute([order.index(i) for i in range(len(order))])


def _order(dims: str) -> list[int]:
    return [dims.index("B"), *[i for i, letter in enumerate(dims) if letter not in "BD"], dims.index("D")]


def editable_states(states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Which rows of conditioning states (B, N, D) may be edited: (B, N, 1) boolean.

    Not those that are exactly zero (umT5's padding, ConditioningZeroOut), nor those outside of the model's own mask
    (B, N), if it takes one.
    """
    rows = states.any(dim=-1, keepdim=True)
    if mask is not None and mask.numel() == states.shape[0] * states.shape[1]:
        rows = rows & (mask.reshape(*states.shape[:2], 1) > 0)
    return rows


def patches(x: torch.Tensor, patch: tuple[int, ...]) -> list[int]:
    """How many patches the last dims of `x` make, begun ones included."""
    return [math.ceil(size / step) for size, step in zip(x.shape[-len(patch) :], patch, strict=True)]


def denoised(mask: torch.Tensor | None, patch: tuple[int, ...]) -> torch.Tensor | None:
    """A latent's denoise mask (B, C, T, H, W) as a token mask: a patch counts if any of it is generated."""
    if mask is None:
        return None
    pooled = torch.nn.functional.max_pool3d(mask[:, :1].float(), patch, stride=patch, ceil_mode=True)
    return pooled.flatten(1)[..., None] > 0


def whole(model: Any, x: torch.Tensor, arguments: Mapping[str, Any]) -> Layout:
    """Every token is generated."""
    return {"image": TokenRange(0, None)}
