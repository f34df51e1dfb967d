"""Orthogonal Procrustes: the rotation (semi-orthogonal where the widths differ) that lays one cloud on the other.

    X^T Y = A Sigma B^T,   Q = A B^T,   c = tr(Sigma) / ||X||^2,   W = c Q

(Schoenemann 1966; arXiv 2606.05290.) The scale c changes no direction, it makes W comparable as a prediction. Axes
whose singular value is rounding are left out: off the anchors' span Q is not determined.

With fewer anchors than channels on both sides, X = U S V^T and Y = U' S' V'^T give X^T Y = V (S U^T U' S') V'^T, so
the decomposition is of a matrix as small as the anchors are few.
"""

from __future__ import annotations

import torch

from ..alignment.maps import SpaceMap
from ..linear_algebra import spectrum

ROUNDING = 1e-8  # of the largest singular value


def fit_orthogonal(x: torch.Tensor, y: torch.Tensor) -> SpaceMap:
    """The Procrustes map from x (n, D_s) to y (n, D_t); `chosen` has the number of axes and the scale."""
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
