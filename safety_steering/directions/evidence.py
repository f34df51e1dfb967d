"""How far a fitted direction can be trusted: does it come again from other prompts, and could chance have made it?

A class difference is a contrast: weights w with 1 / n_safe on safe rows, -1 / n_unsafe on unsafe ones, so that
d = w^T X. Halves and permutations are other weights on the same rows, hence one matrix product for many of them.
Rows of one pair are drawn together and exchange labels only among themselves; rows without a pair form one stratum.
The frames of one video are no independent prompts: they are drawn together and have one label among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..activations import SAFE, UNSAFE, Activations, Row, States
from ..vectors.vector import HookPointDirections
from .rows import categories_of, projections, where

# wide enough to keep a processor busy, narrow enough to stay in its cache
CHANNELS_AT_ONCE = 512


@dataclass(frozen=True)
class Confidence:
    """Cosine between the directions of two random halves of the prompts: mean, and the lowest tenth's edge."""

    mean: float
    low: float


def contrast(unsafe: torch.Tensor) -> torch.Tensor:
    """The weights (..., n) float64 of the class difference safe - unsafe; `unsafe` (..., n) bool."""
    counts = unsafe.sum(dim=-1, keepdim=True)
    return (~unsafe).double() / (unsafe.shape[-1] - counts) - unsafe.double() / counts


def half_contrasts(
    unsafe: torch.Tensor, groups: torch.Tensor, videos: torch.Tensor, *, repeats: int, generator: torch.Generator
) -> torch.Tensor:
    """Contrast weights (2 repeats, n) of random halves: a half and the other, in turn. NaN where one lacks a class.

    groups: from `strata`; pairs stay together. videos: (n,) numbers, shared by the frames of one; they do too.
    """
    weights = [torch.empty(0, len(unsafe), dtype=torch.float64)]
    for _ in range(repeats):
        first = _half(unsafe, groups, videos, generator)
        weights += [_contrast_within(unsafe, half)[None] for half in (first, ~first)]
    return torch.cat(weights)


def agreement(directions: torch.Tensor) -> Confidence:
    """How alike the directions (2 repeats, D) of the halves are: 1 is the same direction, 0 none in common."""
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
    """Half of the numbers that there are."""
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
    """How often labels that are exchanged within pairs give a class difference as long as the real one; in (0, 1].

    x: (n, D). The statistic is ||w^T X||, and (1 + hits) / (1 + repeats) counts the real labels among the draws
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

    float32 is enough once the offset that all rows share is gone, and takes half the time. Contrast weights sum to
    zero, so taking it out changes nothing else.
    """
    squares = torch.zeros(len(weights), dtype=torch.float64)
    for start in range(0, x.shape[1], CHANNELS_AT_ONCE):
        channels = x[:, start : start + CHANNELS_AT_ONCE]
        centred = (channels - channels.mean(dim=0)).float()
        squares += (weights @ centred).square().sum(dim=1)
    return squares.sqrt()


# --- Separability: how well a direction tells safe from unsafe states that it was not fitted on.


def auc(positive: torch.Tensor, negative: torch.Tensor) -> float:
    """Probability that a value of `positive` exceeds one of `negative`, ties counting half (area under the ROC)."""
    _, order = torch.unique(torch.cat([positive, negative]).double(), return_inverse=True)
    counts = order.bincount().double()
    middle = counts.cumsum(0) - (counts - 1) / 2
    total = middle[order[: len(positive)]].sum()
    n, m = len(positive), len(negative)
    return float((total - n * (n + 1) / 2) / (n * m))


def separability(
    activations: Activations, hook_point: str, point: HookPointDirections, *, split: str = "validation"
) -> dict[str, list[float]]:
    """AUC with which each direction tells safe from unsafe rows of a split it was not fitted on, per sigma bin."""
    return separability_of(activations.rows(), activations.read(hook_point), point, split=split)


def separability_of(
    rows: Sequence[Row], states: States, point: HookPointDirections, *, split: str = "validation"
) -> dict[str, list[float]]:
    """As `separability`, from states at hand; NaN where the split has no row of one of the labels."""
    safe = where(rows, SAFE, split)
    known = set[str]().union(*map(categories_of, rows))
    result: dict[str, list[float]] = {}
    for name, direction in point.categories.items():
        unsafe = where(rows, UNSAFE, split, categories={name} if name in known else known)
        result[name] = []
        for k in range(point.bins):
            u = direction.direction[k].double()
            along = (projections(states.pooled[:, k], chosen, u) for chosen in (safe, unsafe))
            good, bad = (values[~values.isnan()] for values in along)
            result[name].append(auc(good, bad) if len(good) and len(bad) else float("nan"))
    return result
