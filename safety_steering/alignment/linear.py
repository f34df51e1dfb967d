"""The linear maps W from x (n, D_s) to y (n, D_t): ridge, orthogonal Procrustes and reduced-rank ridge regression.

Rows are anchors; channels are centred and standardised. Everything goes through X = U S V^T with P = U^T Y, so that no
D x D matrix is decomposed where there are fewer anchors than channels.
"""

from __future__ import annotations

import torch

from ..linear_algebra import Spectrum, spectrum
from .maps import SpaceMap, inner_split

GRID = 61  # penalties
SMALLEST, LARGEST = 1e-6, 1e3  # of the mean squared singular value
ROUNDING = 1e-8  # of the largest singular value


def fit_ridge(x: torch.Tensor, y: torch.Tensor) -> SpaceMap:
    """Ridge regression (arXiv 2606.05290), its penalty chosen by `choose_penalty`.

        W = (X^T X + lambda I)^-1 X^T Y = X^T (X X^T + lambda I)^-1 Y

    `chosen` has the penalty and the degrees of freedom.
    """
    found, projections, penalty = _regress(x, y)
    freedom = float((found.squares / (found.squares + penalty)).sum())
    matrix = _ridge_matrix(found, projections, penalty)
    return SpaceMap("linear", {"matrix": matrix.float()}, {"penalty": penalty, "degrees_of_freedom": freedom})


def fit_orthogonal(x: torch.Tensor, y: torch.Tensor) -> SpaceMap:
    """Orthogonal Procrustes (Schoenemann 1966; arXiv 2606.05290), semi-orthogonal where the widths differ.

        X^T Y = A Sigma B^T,   Q = A B^T,   c = tr(Sigma) / ||X||^2,   W = c Q

    The scale c changes no direction; it makes W comparable as a prediction. Axes whose singular value is rounding are
    left out: outside of the anchors' span Q is not determined. With fewer anchors than channels on both sides,
    Y = U' S' V'^T gives X^T Y = V (S U^T U' S') V'^T, and only the inner matrix is decomposed.

    `chosen` has the number of axes and the scale.
    """
    x, y = x.double(), y.double()
    if len(x) < min(x.shape[1], y.shape[1]):
        of_x, of_y = spectrum(x), spectrum(y)
        core = of_x.squares.sqrt()[:, None] * (of_x.left.T @ of_y.left) * of_y.squares.sqrt()
        a, sigma, b = torch.linalg.svd(core, full_matrices=False)
        a, b = of_x.right @ a, b @ of_y.right.T
    else:
        a, sigma, b = torch.linalg.svd(x.T @ y, full_matrices=False)
    kept = sigma > ROUNDING * sigma[0]
    scale = float(sigma.sum() / x.square().sum())
    matrix = scale * (a[:, kept] @ b[kept])
    return SpaceMap("linear", {"matrix": matrix.float()}, {"axes": float(kept.sum()), "scale": scale})


def fit_reduced_rank(x: torch.Tensor, y: torch.Tensor, *, rank: int = 0, seed: int = 0) -> SpaceMap:
    """Ridge regression through r shared axes of the target (Izenman 1975; Mukherjee and Zhu 2011).

        W_r = W V_r V_r^T,   V_r: leading eigenvectors of W^T (X^T X + lambda I) W = P^T diag(s^2 / (s^2 + lambda)) P

    rank: r; 0 takes the rank with the least error on a fifth of the rows, from a fit on the others. `chosen` has the
    rank and the penalty.
    """
    rank = rank or _choose_rank(x, y, seed)
    matrix, axes, penalty = _ridge_and_axes(x, y)
    axes = axes[:, :rank]
    reduced = (matrix @ axes) @ axes.T
    return SpaceMap("linear", {"matrix": reduced.float()}, {"rank": float(axes.shape[1]), "penalty": penalty})


def choose_penalty(found: Spectrum, projections: torch.Tensor, y: torch.Tensor) -> float:
    """The penalty of a grid with the least generalised cross-validation (Golub, Heath and Wahba 1979).

        GCV(lambda) = (||Y - X W||^2 / n) / (1 - df / n)^2,   df = 1 + sum_i s_i^2 / (s_i^2 + lambda)

    The 1 in df stands for the mean that was subtracted. Both are closed forms in S and P = `projections`.
    """
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


def _regress(x: torch.Tensor, y: torch.Tensor) -> tuple[Spectrum, torch.Tensor, float]:
    """The spectrum of x, P (r, D_t), and the penalty."""
    found = spectrum(x)
    projections = found.left.T @ y.double()
    return found, projections, choose_penalty(found, projections, y)


def _ridge_matrix(found: Spectrum, projections: torch.Tensor, penalty: float) -> torch.Tensor:
    """W (D_s, D_t), float64."""
    matrix: torch.Tensor = found.x.T @ (found.left @ (projections / (found.squares + penalty)[:, None]))
    return matrix


def _ridge_and_axes(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, float]:
    """The ridge map, the target's axes (D_t, r) by how much the map explains along them, and the penalty."""
    found, projections, penalty = _regress(x, y)
    weighted = (found.squares / (found.squares + penalty)).sqrt()[:, None] * projections
    return _ridge_matrix(found, projections, penalty), spectrum(weighted).right, penalty


def _choose_rank(x: torch.Tensor, y: torch.Tensor, seed: int) -> int:
    """The rank with the least validation error; the error of every rank is a cumulative sum over the axes."""
    fit, validation = inner_split(len(x), seed)
    matrix, axes, _ = _ridge_and_axes(x[fit], y[fit])
    predicted, true = (x[validation].double() @ matrix) @ axes, y[validation].double() @ axes
    gains = (2 * predicted * true - predicted.square()).sum(dim=0).cumsum(dim=0)
    return int(gains.argmax()) + 1
