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


# --- Shrunk linear discriminant analysis: the remedy where a few channels of large variance dominate a mean difference.
#
#     u ~ (lambda I + S_w)^-1 d,   lambda = shrinkage x mean eigenvalue of S_w
#
# S_w is the pooled within-class covariance (Fisher's discriminant with a ridge, as in Friedman 1989).


def whiten(differences: torch.Tensor, unsafe: torch.Tensor, safe: torch.Tensor, shrinkage: float) -> torch.Tensor:
    """(lambda I + S_w)^-1 applied to each row of `differences` (m, D) float64; unsafe (n, D), safe (k, D).

    With fewer rows than channels it goes through the n x n Gram matrix (Woodbury), so that no D x D matrix is made.
    """
    centred = torch.cat([unsafe - unsafe.mean(0), safe - safe.mean(0)]).double()
    freedom = len(centred) - 2
    ridge = shrinkage * centred.square().sum(dim=0).mean() / freedom
    if len(centred) < centred.shape[1]:
        gram = centred @ centred.T + freedom * ridge * torch.eye(len(centred), dtype=centred.dtype)
        explained = torch.linalg.solve(gram, centred @ differences.T)
        without: torch.Tensor = (differences - explained.T @ centred) / ridge
        return without
    scatter = centred.T @ centred / freedom
    identity = torch.eye(centred.shape[1], dtype=centred.dtype)
    solved: torch.Tensor = torch.linalg.solve(scatter + ridge * identity, differences.T)
    return solved.T


# --- Channel standardisation: every channel weighs the same before the direction is sought.
#
# With scale_d the benign standard deviation of channel d, the direction is fitted on z = h / scale. What is stored is
# the axis in the model's own channels along which z is measured: <z, u_z> = <h, u_z / scale>, so u = (u_z / scale) /
# ||...||. A mean difference that is standardised so is (mu_safe - mu_unsafe) / scale^2, the diagonal discriminant.
# Carrying u_z over as a displacement (scale x u_z) would give the plain mean difference back.


SMALLEST_SHARE = 0.1


OUTLIERS = 3


def channel_scales(benign: torch.Tensor) -> torch.Tensor:
    """Standard deviation of each channel over benign states (b, D); (D,) float64.

    It is never below a tenth of the median channel's, so that no channel counts for its silence.
    """
    scales: torch.Tensor = benign.double().std(dim=0)
    floor = SMALLEST_SHARE * scales.median()
    return scales.clamp_min(float(floor) if float(floor) > 0 else 1.0)


def outlier_share(direction: torch.Tensor) -> float:
    """Share of ||u||^2 in a direction's (D,) largest channels, 3 of them: near 1, a few outliers are the direction."""
    squares = direction.double().square()
    return float(squares.topk(min(OUTLIERS, len(squares))).values.sum() / squares.sum())


def whitened(directions: torch.Tensor, states: torch.Tensor, shrinkage: float) -> torch.Tensor:
    """(S + shrinkage * tr(S) / D * I)^-1 applied to each of `directions` (c, D); S of states (n, D). float64.

    Along the states' own axes by their variance, outside of them by the ridge alone: with fewer states than channels no
    D x D matrix is made.
    """
    directions = directions.double()
    found = spectrum(states.double() - states.double().mean(dim=0))
    freedom = max(1, len(states) - 1)
    ridge = shrinkage * float(found.squares.sum()) / freedom / states.shape[1]
    axes = found.right
    inside = directions @ axes
    along = (inside / (found.squares / freedom + ridge)) @ axes.T
    solved: torch.Tensor = along + (directions - inside @ axes.T) / ridge
    return solved
