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
