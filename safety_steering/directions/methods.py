"""Supervised PCA in closed form, as thin as its labels.

Supervised PCA (Barshan, Ghodsi, Azimifar, Jahromi, Pattern Recognition 44, 2011) maximises

    tr(U^T X H L H X^T U)   subject to   U^T U = I

X is D x n (here its transpose, one row a prompt), H = I - 11^T / n, L the kernel of the labels. With L = F F^T, F of
shape n x r, the solution is the left singular vectors of Psi = X H F, which is D x r: neither a D x D nor an n x n
matrix is ever made, and H F is F with its column means taken out.

With two classes every label kernel has H L H of rank one, and the solution is (mu_safe - mu_unsafe) / ||...|| exactly:
binary Supervised PCA IS the difference of the class means, and there is no second component.
"""

from __future__ import annotations

import torch

from ..errors import SafetySteeringError

KERNELS = ("delta", "linear")


# singular values below this share of the largest are rounding, not label information
RANK_TOLERANCE = 1e-10


def label_factor(labels: torch.Tensor, kernel: str = "delta") -> torch.Tensor:
    """F (n, r) float64 with L = F F^T, for labels (n, C): one column a category, 1 where it holds and 0 elsewhere.

    "linear" is L = Y Y^T, which counts the categories that two rows share (multi-label, one against the rest).
    "delta" is 1 where two rows have the same set of categories (binary and multi-class).

    Raises:
        SafetySteeringError: the kernel is not one of KERNELS.
    """
    if kernel == "linear":
        return labels.double()
    if kernel == "delta":
        classes = torch.unique(labels, dim=0, return_inverse=True)[1]
        return torch.nn.functional.one_hot(classes).double()
    raise SafetySteeringError(f"The label kernel is '{kernel}', expected one of {', '.join(KERNELS)}.")


def supervised_pca(x: torch.Tensor, factor: torch.Tensor, components: int = 0) -> torch.Tensor:
    """The leading directions U (D, c), orthonormal float64, of states x (n, D) with label factor F (n, r).

    components: how many to keep at most; 0 keeps all that the labels determine.

    Raises:
        SafetySteeringError: the labels are all alike, or the classes have the same mean.
    """
    psi = x.double().T @ _centred(factor)
    u, strengths, _ = torch.linalg.svd(psi, full_matrices=False)
    kept: torch.Tensor = u[:, : _rank(strengths, components)]
    return kept


def supervised_pca_dual(gram: torch.Tensor, factor: torch.Tensor, components: int = 0) -> torch.Tensor:
    """The same solution from inner products alone: A (n, c) with U = X A, for the Gram matrix (n, n) of the states.

    Psi^T Psi = (H F)^T X^T X (H F) = V S^2 V^T gives A = H F V S^-1. It squares the singular values, so components far
    weaker than the first lose digits; use `supervised_pca` where the states themselves are at hand.

    Raises:
        SafetySteeringError: as `supervised_pca`.
    """
    centred = _centred(factor)
    squared, v = torch.linalg.eigh(centred.T @ gram.double() @ centred)
    strengths = squared.flip(0).clamp_min(0).sqrt()
    kept = _rank(strengths, components, RANK_TOLERANCE**0.5)
    coefficients: torch.Tensor = centred @ v.flip(1)[:, :kept] / strengths[:kept]
    return coefficients


def _centred(factor: torch.Tensor) -> torch.Tensor:
    factor = factor.double()
    return factor - factor.mean(dim=0)


def _rank(strengths: torch.Tensor, components: int, tolerance: float = RANK_TOLERANCE) -> int:
    strongest = float(strengths[0]) if len(strengths) else 0.0
    rank = int((strengths > tolerance * strongest).sum()) if strongest > 0 else 0
    if not rank:
        raise SafetySteeringError(
            "The labels do not vary or the classes have the same mean, so there is no direction. "
            "Capture prompts of both labels."
        )
    return min(rank, components) if components > 0 else rank


# --- Taking a prompt's length out of its states: unsafe prompts tend to be longer, and length is not safety.
#
# Each channel is regressed on the prompt's length *within* the classes (analysis of covariance), so that the slope
# knows nothing of the classes' difference, and the length that exceeds the overall mean is taken out:
#
#     h_i <- h_i - b (l_i - mean l),   b = sum (l_i - mean l_class)(h_i - mu_class) / sum (l_i - mean l_class)^2


def without_length(x: torch.Tensor, lengths: torch.Tensor, unsafe: torch.Tensor) -> torch.Tensor:
    """States x (n, D) float64 with the effect of lengths (n,) taken out; unsafe (n,) bool gives the classes.

    Raises:
        SafetySteeringError: a length is not known (0), or within each class all are alike.
    """
    if not bool((lengths > 0).all()):
        raise SafetySteeringError(
            "The length of some prompts is not known, so it cannot be regressed out. "
            "Capture them again, or switch length regression off."
        )
    lengths = lengths.double()
    within = lengths.clone()
    for members in (unsafe, ~unsafe):
        within[members] -= lengths[members].mean()
    spread = within.square().sum()
    if not float(spread) > 0:
        raise SafetySteeringError(
            "Within each class all prompts have the same length, so there is no slope to take out. "
            "Switch length regression off."
        )
    # `within` sums to zero in each class, so the classes' means drop out of this product
    slope = within @ x / spread
    return x - (lengths - lengths.mean())[:, None] * slope


# --- A logistic probe, for comparison: the axis that predicts the label best, which need not be the one that moves it.
#
# Minimises ||w||^2 / 2 + C sum log(1 + exp(-y (<w, x> + b))) with scikit-learn; u = w / ||w||.


def logistic_probe(unsafe: torch.Tensor, safe: torch.Tensor, inverse_penalty: float = 1.0) -> torch.Tensor:
    """The probe's normal (D,) float64, not of unit length, towards safe; unsafe (n, D), safe (m, D).

    inverse_penalty: C above, for states whose channels have a mean square of 1 about their mean.
    """
    from sklearn.linear_model import LogisticRegression

    x = torch.cat([unsafe, safe]).double()
    x = x - x.mean(dim=0)
    x = x / x.square().mean().sqrt().clamp_min(torch.finfo(x.dtype).tiny)
    labels = torch.cat([torch.zeros(len(unsafe)), torch.ones(len(safe))]).numpy()
    probe = LogisticRegression(C=inverse_penalty, max_iter=2000).fit(x.numpy(), labels)
    return torch.from_numpy(probe.coef_[0].copy())
