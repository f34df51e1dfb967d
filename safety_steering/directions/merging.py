"""Neighbouring sigma bins of a capture, merged to fewer."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..activations import States
from ..errors import SafetySteeringError


def merged_edges(edges: Sequence[float], bins: int) -> tuple[float, ...]:
    """The edges of `bins` merged sigma bins, 0 for no merging; SafetySteeringError unless `bins` is a divisor."""
    found = len(edges) - 1
    if bins and found % bins:
        whole = [str(n) for n in range(1, found + 1) if found % n == 0]
        raise SafetySteeringError(
            f"The activations have {found} sigma bins, which do not merge into {bins}. Choose {', '.join(whole)}."
        )
    return tuple(edges[:: found // bins]) if bins else tuple(edges)


def merged_bins(states: States, bins: int) -> States:
    """States (n, K, D) with neighbouring bins merged to `bins`: pooled states averaged over the captured bins.

    Averaging token states would narrow their spread, so row i takes the token state of bin i modulo the group's size,
    and `tokens` become those of all captured bins, T times the group's size.
    """
    rows, found, width = states.pooled.shape
    if found == bins:
        return states
    group = found // bins
    grouped = states.pooled.reshape(rows, bins, group, width)
    turn = torch.arange(rows) % group
    token = states.token.reshape(rows, bins, group, width)[torch.arange(rows), :, turn]
    tokens = states.tokens
    return States(grouped.nanmean(dim=2), token, None if tokens is None else merged_tokens(tokens, bins))


def merged_tokens(tokens: torch.Tensor, bins: int) -> torch.Tensor:
    """(n, K, T, ...) as (n, bins, T K / bins, ...): the tokens of neighbouring bins one after another."""
    return tokens.reshape(len(tokens), bins, -1, *tokens.shape[3:])
