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


def shrunk_solve(directions: torch.Tensor, centred: torch.Tensor, shrinkage: float) -> torch.Tensor:
    """(S + lambda I)^-1 applied to each direction, with the scatter S = X^T X and lambda = shrinkage * tr(S) / D.

    This is the ridge form of Fisher's discriminant (Friedman 1989). With fewer rows than channels it is solved through
    the Gram matrix (Woodbury identity): (d - X^T (X X^T + lambda I)^-1 X d) / lambda.

    Args:
        directions: (m, D).
        centred: X (n, D), the states without their mean.
        shrinkage: above 0. The higher, the less a direction is turned.

    Returns:
        (m, D) float64. S is not divided by the degrees of freedom, so only the rows' directions have a meaning.

    Raises:
        SafetySteeringError: the states do not vary, or the shrinkage is not a finite number above 0.
    """
    directions, x = directions.double(), centred.double()
    rows, width = x.shape
    penalty = shrinkage * float(x.square().sum()) / width
    if not 0 < penalty < math.inf:
        raise SafetySteeringError(
            f"The covariance of these states cannot be inverted with shrinkage {shrinkage}. Expected finite states "
            "that vary, and a finite shrinkage above 0, such as 1."
        )
    gram = x @ x.T if rows < width else x.T @ x
    gram.diagonal().add_(penalty)
    if rows < width:
        explained = torch.linalg.solve(gram, x @ directions.T)
        without: torch.Tensor = (directions - explained.T @ x) / penalty
        return without
    solved: torch.Tensor = torch.linalg.solve(gram, directions.T)
    return solved.T


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
