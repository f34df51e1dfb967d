"""Which few tokens' states a capture keeps of each prompt: those by which its twin differs can then be found.

A text's tokens have no fixed places, so its first ones are kept, at most `TEXT_TOKENS`. Other streams have thousands of
tokens, each at a place of the picture: `STREAM_TOKENS` places are kept, one from each equal part of the stream, drawn
by the pair's id, so that twins, who share their noise, are compared place by place.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch

from ...safety_steering.hook_point import HookPoint
from ..sampling.sampling import number_of

TEXT_TOKENS, STREAM_TOKENS = 128, 32


def most_tokens(name: HookPoint) -> int:
    """T, the most tokens that are kept at a hook point."""
    return TEXT_TOKENS if name.is_text else STREAM_TOKENS


def kept_tokens(
    name: HookPoint, pairs: Sequence[str], count: int, mask: torch.Tensor | None, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices (R, T) of the kept tokens of R rows with `count` tokens each, and which of them are real (R, T).

    pairs: R ids. mask: (R, count, 1) boolean, the tokens to choose from; None: all.
    """
    most = most_tokens(name)
    ranks = torch.arange(most, device=device).expand(len(pairs), most)
    number = torch.full((len(pairs), 1), count, device=device) if mask is None else mask.sum(dim=1)
    real = ranks < number
    if not name.is_text:
        spread = torch.stack([_drawn(pair, most) for pair in pairs]).to(device)
        ranks = torch.where(number > most, (spread * number).long(), ranks)
    if mask is not None:  # the token of rank r is the first with r + 1 tokens up to it
        ranks = torch.searchsorted(mask[..., 0].cumsum(dim=1), ranks + 1)
    return ranks.clamp(0, count - 1), real


@lru_cache(maxsize=64)
def _drawn(pair: str, most: int) -> torch.Tensor:
    """A fraction in [0, 1) from each of `most` equal parts, float64."""
    generator = torch.Generator().manual_seed(number_of(pair))
    return (torch.arange(most) + torch.rand(most, generator=generator, dtype=torch.float64)) / most
