"""Ridge regression, its penalty chosen by generalised cross-validation.

    W = (X^T X + lambda I)^-1 X^T Y = X^T (X X^T + lambda I)^-1 Y
    GCV(lambda) = (||Y - X W||^2 / n) / (1 - df / n)^2,   df = 1 + sum_i s_i^2 / (s_i^2 + lambda)

(arXiv 2606.05290; Golub, Heath and Wahba 1979.) With X = U S V^T both are closed forms in S and P = U^T Y, so every
penalty of the grid costs O(r). The 1 in df is the mean that was taken off.
"""

from __future__ import annotations

import torch

from ..linear_algebra import Spectrum, spectrum
from .maps import SpaceMap

GRID = 61
SMALLEST, LARGEST = 1e-6, 1e3  # of the mean squared singular value


def fit_ridge(x: torch.Tensor, y: torch.Tensor) -> SpaceMap:
    """The ridge map from x (n, D_s) to y (n, D_t); `chosen` has the penalty and the degrees of freedom."""
    found = spectrum(x)
    projections = found.left.T @ y.double()
    penalty = choose_penalty(found, projections, y)
    matrix = solve(found, projections, penalty)
    freedom = float((found.squares / (found.squares + penalty)).sum())
    return SpaceMap("linear", {"matrix": matrix.float()}, {"penalty": penalty, "degrees_of_freedom": freedom})


def choose_penalty(found: Spectrum, projections: torch.Tensor, y: torch.Tensor) -> float:
    """The penalty of the grid with the least GCV."""
    rows, squares = len(found.x), found.squares
    unit = float(squares.mean())
    grid = torch.logspace(0, 1, GRID, base=LARGEST / SMALLEST, dtype=torch.float64) * SMALLEST * unit
    power = projections.square().sum(dim=1)
    outside = (y.double().square().sum() - power.sum()).clamp_min(0)
    kept = squares / (squares + grid[:, None])
    residual = (outside + ((1 - kept).square() * power).sum(dim=1)) / rows
    freedom = 1 + kept.sum(dim=1)
    usable = freedom < rows * (1 - 1e-9)
    scores = torch.where(usable, residual / (1 - freedom / rows).square(), torch.inf)
    return float(grid[scores.argmin()])


def solve(found: Spectrum, projections: torch.Tensor, penalty: float) -> torch.Tensor:
    """W (D_s, D_t), float64."""
    matrix: torch.Tensor = found.x.T @ (found.left @ (projections / (found.squares + penalty)[:, None]))
    return matrix
