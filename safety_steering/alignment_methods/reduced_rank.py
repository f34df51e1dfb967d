"""Reduced-rank ridge regression: ridge through r shared axes of the target.

    W_r = W V_r V_r^T,   V_r: leading eigenvectors of W^T (X^T X + lambda I) W = P^T diag(s^2 / (s^2 + lambda)) P

(Izenman 1975; Mukherjee and Zhu 2011.) If no rank is given, it is the one with the least error on a fifth of the
rows, from a fit on the others; the error of every rank is a cumulative sum.
"""

from __future__ import annotations

import torch

from ..alignment.linear import choose_penalty, solve
from ..alignment.maps import SpaceMap
from ..linear_algebra import spectrum
from .inner_split import inner_split


def fit_reduced_rank(x: torch.Tensor, y: torch.Tensor, *, rank: int = 0, seed: int = 0) -> SpaceMap:
    """The map of this rank, or of the rank chosen (0), from x (n, D_s) to y (n, D_t)."""
    chosen = rank or _choose_rank(x, y, seed)
    matrix, axes, penalty = _fit(x, y)
    axes = axes[:, :chosen]
    reduced = (matrix @ axes) @ axes.T
    return SpaceMap("linear", {"matrix": reduced.float()}, {"rank": float(axes.shape[1]), "penalty": penalty})


def _fit(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, float]:
    """The ridge map, the target's axes (D_t, r) by how much of it they explain, and the penalty."""
    found = spectrum(x)
    projections = found.left.T @ y.double()
    penalty = choose_penalty(found, projections, y)
    weighted = (found.squares / (found.squares + penalty)).sqrt()[:, None] * projections
    return solve(found, projections, penalty), spectrum(weighted).right, penalty


def _choose_rank(x: torch.Tensor, y: torch.Tensor, seed: int) -> int:
    fit, validation = inner_split(len(x), seed)
    matrix, axes, _ = _fit(x[fit], y[fit])
    predicted, true = (x[validation].double() @ matrix) @ axes, y[validation].double() @ axes
    gains = (2 * predicted * true - predicted.square()).sum(dim=0).cumsum(dim=0)
    return int(gains.argmax()) + 1
