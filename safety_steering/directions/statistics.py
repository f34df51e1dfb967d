"""What a fit reports of a direction: its statistics on benign states, its AUC, its stability and its significance.

A class difference is a contrast: weights w with 1 / n_safe on safe rows and -1 / n_unsafe on unsafe ones, so that
d = w^T X. Halves and permutations are other weights on the same rows, hence one matrix product for many of them. Rows
of one pair are drawn together and exchange labels only among themselves; rows without a pair form one stratum. The
frames of one video are not independent prompts: they are drawn together and have one label.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..activations import SAFE, UNSAFE, Row, States
from ..vectors.vector import Direction, HookPointDirections
from .rows import VALIDATION, categories_of, projections, where

# large enough to use every core, small enough to stay in the processor's cache
CHANNELS_AT_ONCE = 512


@dataclass(frozen=True)
class Confidence:
    """Cosine between the directions of two random halves of the prompts: mean and 10th percentile. NaN if unknown."""

    mean: float
    low: float


@dataclass(frozen=True)
class Statistics:
    """Statistics of one direction in one sigma bin. None where it was not asked for.

    unsafe, safe: numbers of rows. tokens: what the direction was fitted on, "pooled" or "differing".
    """

    unsafe: int
    safe: int
    confidence: Confidence | None
    p_value: float | None
    tokens: str = "pooled"


def measured(
    u: torch.Tensor,
    gap: float | torch.Tensor,
    pooled: torch.Tensor,
    token: torch.Tensor,
    *,
    correction: int = 1,
    center: torch.Tensor | None = None,
) -> Direction:
    """The direction u (D,), a unit vector, with its gap and its statistics on benign states, for one sigma bin.

    pooled, token: projections <h, u> (n,) and (m,) of benign pooled and token states. correction: as of `torch.std`.
    center: (), if it is not the mean of `pooled`.
    """
    numbers = {
        "gap": torch.as_tensor(gap),
        "center": pooled.mean() if center is None else center,
        "std_pooled": pooled.std(correction=correction),
        "std_token": token.std(correction=correction),
    }
    return Direction(u[None].float(), **{name: value[None].float() for name, value in numbers.items()})


def finite(value: float) -> float | None:
    """The value, or None for NaN and infinity, which JSON has not."""
    return value if math.isfinite(value) else None


def auc(positive: torch.Tensor, negative: torch.Tensor) -> float:
    """Area under the ROC: the probability that a value of `positive` (n,) exceeds one of `negative` (m,).

    Ties count half (Mann-Whitney U / (n m)). NaN if one of them is empty.
    """
    n, m = len(positive), len(negative)
    if not n or not m:
        return math.nan
    _, order = torch.unique(torch.cat([positive, negative]).double(), return_inverse=True)
    counts = order.bincount().double()
    rank = counts.cumsum(0) - (counts - 1) / 2
    return float((rank[order[:n]].sum() - n * (n + 1) / 2) / (n * m))


def held_out_auc(
    rows: Sequence[Row], states: States, point: HookPointDirections, *, split: str = VALIDATION
) -> dict[str, list[float]]:
    """AUC of each category's direction between safe and unsafe rows of a split, one value a sigma bin.

    NaN where the split has no row of one label. A category that no row has ("all") is judged on every unsafe row.
    """
    safe = where(rows, SAFE, split)
    known = set[str]().union(*map(categories_of, rows))
    result: dict[str, list[float]] = {}
    for name, direction in point.categories.items():
        unsafe = where(rows, UNSAFE, split, categories={name} if name in known else known)
        result[name] = []
        for k in range(point.bins):
            u = direction.direction[k].double()
            along = (projections(states.pooled[:, k], chosen, u) for chosen in (safe, unsafe))
            result[name].append(auc(*(values[~values.isnan()] for values in along)))
    return result


def contrast(unsafe: torch.Tensor) -> torch.Tensor:
    """The weights (..., n) float64 of the class difference safe - unsafe; `unsafe` (..., n) bool."""
    counts = unsafe.sum(dim=-1, keepdim=True)
    return (~unsafe).double() / (unsafe.shape[-1] - counts) - unsafe.double() / counts


def half_contrasts(
    unsafe: torch.Tensor, groups: torch.Tensor, videos: torch.Tensor, *, repeats: int, generator: torch.Generator
) -> torch.Tensor:
    """Contrast weights (2 repeats, n) of random halves: each half, then its complement. NaN where one lacks a class.

    groups: (n,) from `strata`; pairs stay together. videos: (n,) numbers, shared by the frames of one video, which stay
    together too.
    """
    weights = [torch.empty(0, len(unsafe), dtype=torch.float64)]
    for _ in range(repeats):
        first = _half(unsafe, groups, videos, generator)
        weights += [_contrast_within(unsafe, half)[None] for half in (first, ~first)]
    return torch.cat(weights)


def agreement(directions: torch.Tensor) -> Confidence:
    """Cosines between the directions (2 repeats, D) of the halves: 1 for equal directions, 0 for orthogonal ones."""
    units = torch.nn.functional.normalize(directions, dim=1)
    cosines = (units[0::2] * units[1::2]).sum(dim=1)
    return Confidence(float(cosines.mean()), float(cosines.quantile(0.1)))


def _half(unsafe: torch.Tensor, groups: torch.Tensor, videos: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Half of the pairs, and half of the unpaired videos of each class; (n,) bool."""
    paired = groups > 0
    chosen = paired & torch.isin(groups, _drawn(groups[paired], generator))
    for members in (unsafe & ~paired, ~unsafe & ~paired):
        chosen |= members & torch.isin(videos, _drawn(videos[members], generator))
    return chosen


def _drawn(numbers: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A random half of the distinct numbers."""
    distinct = torch.tensor(sorted(set(numbers.tolist())), dtype=torch.long)
    return distinct[torch.randperm(len(distinct), generator=generator)[: len(distinct) // 2]]


def _contrast_within(unsafe: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    bad, good = (unsafe & chosen).double(), (~unsafe & chosen).double()
    return good / good.sum() - bad / bad.sum()


def permutation_p_value(
    x: torch.Tensor,
    unsafe: torch.Tensor,
    groups: torch.Tensor,
    videos: torch.Tensor,
    *,
    repeats: int,
    generator: torch.Generator,
) -> float:
    """p-value in (0, 1] of the class difference under exchange of labels within pairs.

    x: (n, D). The statistic is ||w^T X||. p = (1 + hits) / (1 + repeats) counts the real labels among the draws
    (Phipson and Smyth 2010).
    """
    labels = torch.cat([unsafe[None], _shuffled(unsafe, groups, videos, repeats, generator)])
    lengths = _lengths(contrast(labels).float(), x)
    # a draw that leaves every label in place is a tie, and rounding must not decide it
    hits = int((lengths[1:] >= lengths[0] * (1 - 1e-5)).sum())
    return (1 + hits) / (1 + repeats)


def _shuffled(
    unsafe: torch.Tensor, groups: torch.Tensor, videos: torch.Tensor, repeats: int, generator: torch.Generator
) -> torch.Tensor:
    """Labels (repeats, n) bool, exchanged among the videos of a pair."""
    units = torch.empty(int(videos.max()) + 1, dtype=torch.long)
    units[videos] = torch.arange(len(videos))  # one row of each video
    groups, own = groups[units], unsafe[units]
    base = torch.argsort(groups, stable=True)
    keys = torch.rand(repeats, len(units), generator=generator, dtype=torch.float64) + groups
    drawn = torch.empty(repeats, len(units), dtype=torch.bool)
    drawn[:, base] = own[torch.argsort(keys, dim=1)]
    return drawn[:, videos]


def _lengths(weights: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """||w^T X|| as (m,) for contrast weights (m, n) float32.

    Contrast weights sum to zero, so the channels' means may be subtracted first. float32 is then precise enough and
    takes half the time.
    """
    squares = torch.zeros(len(weights), dtype=torch.float64)
    for start in range(0, x.shape[1], CHANNELS_AT_ONCE):
        channels = x[:, start : start + CHANNELS_AT_ONCE]
        centred = (channels - channels.mean(dim=0)).float()
        squares += (weights @ centred).square().sum(dim=1)
    return squares.sqrt()
