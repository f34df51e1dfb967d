"""The spectrum of a matrix of rows, from the smaller of its two Gram matrices.

    X = U S V^T,   X X^T = U S^2 U^T (n x n)   or   X^T X = V S^2 V^T (D x D)

With fewer rows than channels only the n x n matrix is made: that is the exact dual form, at any width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

ROUNDING = 1e-10  # of a Gram matrix's largest eigenvalue: what lies below is rounding


@dataclass(frozen=True, eq=False)
class Spectrum:
    """squares: (r,) S^2, descending, without those that are rounding. left: (n, r) U. All float64."""

    x: torch.Tensor
    squares: torch.Tensor
    left: torch.Tensor

    @property
    def right(self) -> torch.Tensor:
        """(D, r), V."""
        v: torch.Tensor = self.x.T @ (self.left / self.squares.sqrt())
        return v


def spectrum(x: torch.Tensor) -> Spectrum:
    """The spectrum of x (n, D)."""
    x = x.double()
    dual = x.shape[0] <= x.shape[1]
    squares, vectors = torch.linalg.eigh(x @ x.T if dual else x.T @ x)
    kept = (squares > ROUNDING * squares[-1].clamp_min(0)) & (squares > 0)
    squares, vectors = squares[kept].flip(0), vectors[:, kept].flip(1)
    return Spectrum(x, squares, vectors if dual else x @ vectors / squares.sqrt())
