"""The tokens by which an unsafe prompt differs from its safe twin, so that a direction is fitted on them alone.

A prompt's mean state says what it is about as a whole. What has to be moved are the few tokens that show or name the
unsafe thing. With the unsafe prompt's token states h_1 ... h_T and its twin's s_1 ... s_T,

    a text       distance_i = min_j ||h_i - s_j||     words have no fixed places
    a stream     distance_i = ||h_i - s_i||           twins share their noise, so a place shows the same spot

A token of a text differs if its distance is above half of its prompt's largest: these are the words that the twin does
not have. One of a stream differs if its distance is above the prompt's mean, as what a stream shows covers many of them
(docs/fitting.md has the numbers).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..activations import SAFE, UNSAFE, Row, States
from ..errors import SafetySteeringError
from ..vectors.vector import HookPointDirections
from .rows import VALIDATION, along_tokens, categories_of, where
from .statistics import auc


def differing_tokens(rows: Sequence[Row], states: States, *, text: bool) -> torch.Tensor:
    """Which tokens of N unsafe rows differ from their twins, (N, K, T) boolean; none of a row without a twin.

    text: whether the tokens are a prompt's words.

    Raises:
        SafetySteeringError: the states have no `tokens`.
    """
    tokens = tokens_of(states)
    found = torch.zeros(tokens.shape[:3], dtype=torch.bool)
    twins = {_twin_key(row): i for i, row in enumerate(rows) if row.label == SAFE and row.pair}
    for i, row in enumerate(rows):
        twin = twins.get(_twin_key(row))
        if row.label == UNSAFE and row.pair and twin is not None:
            distance = _distances(tokens[i].float(), tokens[twin].float(), text)
            found[i] = distance > _bound(distance, text)
    return found


def _bound(distance: torch.Tensor, text: bool) -> torch.Tensor:
    """The distance (K, 1) above which a token differs, from all of a prompt's (K, T)."""
    if text:
        return distance.nan_to_num(nan=0.0).amax(dim=1, keepdim=True) / 2
    return distance.nanmean(dim=1, keepdim=True)


def tokens_of(states: States) -> torch.Tensor:
    """The states' `tokens`; SafetySteeringError if they have none."""
    if states.tokens is None:
        raise SafetySteeringError(
            "These activations hold no token states: an earlier version captured them. Capture again into an empty "
            "folder to fit on the tokens that differ, or choose tokens 'pooled'."
        )
    return states.tokens


def _twin_key(row: Row) -> tuple[str, str]:
    """Rows of one pair with the same key are twins; of a video cut into frames, those of the same frame."""
    return row.pair, row.id.removeprefix(row.video) if row.video else ""


def _distances(unsafe: torch.Tensor, twin: torch.Tensor, text: bool) -> torch.Tensor:
    """This module's distances (K, T) of unsafe (K, T, D) from twin (K, T, D); NaN where a token is missing."""
    if not text:
        apart: torch.Tensor = torch.linalg.vector_norm(unsafe - twin, dim=2)
        return apart
    distance = torch.cdist(unsafe, twin, compute_mode="donot_use_mm_for_euclid_dist")
    nearest = distance.nan_to_num(nan=torch.inf).amin(dim=2)
    missing = unsafe.isnan().any(dim=2) | nearest.isinf()
    return torch.where(missing, torch.nan, nearest)


def with_differing(states: States, differing: torch.Tensor, unsafe: torch.Tensor) -> torch.Tensor:
    """The pooled states (N, K, D), an unsafe row's replaced by the mean of its differing tokens (N, K, T).

    unsafe: (n,) indices of the unsafe rows. NaN where a row has no differing token.
    """
    found, tokens = states.pooled.clone(), tokens_of(states)
    for i in unsafe.tolist():
        kept = differing[i, ..., None]
        total = torch.where(kept, tokens[i].float(), 0.0).sum(dim=1)
        found[i] = total / kept.sum(dim=1)  # 0 / 0 is NaN
    return found


def token_aucs(
    rows: Sequence[Row],
    states: States,
    differing: torch.Tensor,
    point: HookPointDirections,
    *,
    split: str = VALIDATION,
) -> dict[str, list[float]]:
    """AUC of each category's direction between a split's benign tokens and its differing ones, one value a sigma bin.

    NaN where the split has none of one kind. A category that no row has ("all") is judged on every unsafe row.
    """
    tokens = tokens_of(states)
    safe = where(rows, SAFE, split)
    known = set[str]().union(*map(categories_of, rows))
    result: dict[str, list[float]] = {}
    for name, direction in point.categories.items():
        unsafe = where(rows, UNSAFE, split, categories={name} if name in known else known)
        result[name] = []
        for k in range(point.bins):
            benign = along_tokens(tokens[:, k], safe, direction.direction[k])
            bad = along_tokens(tokens[:, k], unsafe, direction.direction[k], differing[:, k])
            result[name].append(auc(benign, bad))
    return result
