"""Separability: how well a direction tells safe from unsafe states that it was not fitted on."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .activations import SAFE, UNSAFE, Activations, Row, States
from .directions.rows import categories_of, where
from .products import projections
from .vectors.vector import HookPointDirections


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
