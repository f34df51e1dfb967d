"""Linear algebra on states, one row a prompt and one column a channel: spectra, shrunk solves and channel scales.

Everything is float64. With fewer rows than channels only the n x n Gram matrix is made, which is exact at any width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from .errors import SafetySteeringError

ROUNDING = 1e-10  # of a Gram matrix's largest eigenvalue; smaller eigenvalues are rounding
SCALE_FLOOR = 0.1  # of the median channel's standard deviation
OUTLIERS = 3  # channels


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The singular value decomposition x = U S V^T without the singular values that are rounding.

    x: (n, D). squares: (r,) S^2, descending. left: (n, r) U. All float64.
    """

    x: torch.Tensor
    squares: torch.Tensor
    left: torch.Tensor

    @property
    def right(self) -> torch.Tensor:
        """V (D, r)."""
        v: torch.Tensor = self.x.T @ (self.left / self.squares.sqrt())
        return v


def spectrum(x: torch.Tensor) -> Spectrum:
    """The spectrum of x (n, D) from the smaller of its Gram matrices, x x^T = U S^2 U^T or x^T x = V S^2 V^T."""
    x = x.double()
    dual = x.shape[0] <= x.shape[1]
    squares, vectors = torch.linalg.eigh(x @ x.T if dual else x.T @ x)
    kept = (squares > ROUNDING * squares[-1].clamp_min(0)) & (squares > 0)
    squares, vectors = squares[kept].flip(0), vectors[:, kept].flip(1)
    return Spectrum(x, squares, vectors if dual else x @ vectors / squares.sqrt())


class ShrunkScatter:
    """The scatter S = X^T X of centred states X (n, D), inverted with lambda = shrinkage * tr(S) / D.

    This is the ridge form of Fisher's discriminant (Friedman 1989). With fewer rows than channels it is solved through
    the Gram matrix (Woodbury identity): (d - X^T (X X^T + lambda I)^-1 X d) / lambda.

    shrinkage: above 0. The higher, the less a direction is turned.

    Raises:
        SafetySteeringError: the states do not vary, or the shrinkage is not a finite number above 0.
    """

    def __init__(self, centred: torch.Tensor, shrinkage: float) -> None:
        self._x = centred.double()
        rows, width = self._x.shape
        self._penalty = shrinkage * float(self._x.square().sum()) / width
        if not 0 < self._penalty < math.inf:
            raise SafetySteeringError(
                f"The covariance of these states cannot be inverted with shrinkage {shrinkage}. Expected finite states "
                "that vary, and a finite shrinkage above 0, such as 1."
            )
        self._dual = rows < width
        gram = self._x @ self._x.T if self._dual else self._x.T @ self._x
        gram.diagonal().add_(self._penalty)
        self._factors = torch.linalg.lu_factor(gram)

    def solve(self, directions: torch.Tensor) -> torch.Tensor:
        """(S + lambda I)^-1 applied to directions (m, D): (m, D) float64.

        S is not divided by the degrees of freedom, so only the rows' directions have a meaning.
        """
        directions = directions.double()
        if self._dual:
            explained = torch.linalg.lu_solve(*self._factors, self._x @ directions.T)
            without: torch.Tensor = (directions - explained.T @ self._x) / self._penalty
            return without
        solved: torch.Tensor = torch.linalg.lu_solve(*self._factors, directions.T)
        return solved.T


def shrunk_solve(directions: torch.Tensor, centred: torch.Tensor, shrinkage: float) -> torch.Tensor:
    """`ShrunkScatter` of centred states (n, D), applied to directions (m, D)."""
    return ShrunkScatter(centred, shrinkage).solve(directions)


def channel_scales(benign: torch.Tensor) -> torch.Tensor:
    """Standard deviation (D,) float64 of each channel over benign states (n, D).

    Floor at 10 % of the median, so that near-constant channels do not dominate.
    """
    scales: torch.Tensor = benign.double().std(dim=0)
    floor = float(SCALE_FLOOR * scales.median())
    return scales.clamp_min(floor if floor > 0 else 1.0)


def outlier_share(direction: torch.Tensor) -> float:
    """Share of ||u||^2 in the 3 largest channels of a direction u (D,). Near 1 a few outlier channels dominate it."""
    squares = direction.double().square()
    return float(squares.topk(min(OUTLIERS, len(squares))).values.sum() / squares.sum())
