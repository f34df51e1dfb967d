"""The methods that turn labelled states into a direction, and the correction for prompt length.

Supervised PCA (Barshan, Ghodsi, Azimifar, Jahromi, Pattern Recognition 44, 2011) maximises

    tr(U^T X H L H X^T U)   subject to   U^T U = I

X is D x n (here its transpose, one row a prompt), H = I - 11^T / n, L the kernel of the labels. With L = F F^T, F of
shape n x r, the solution is the left singular vectors of Psi = X H F, which is D x r: neither a D x D nor an n x n
matrix is made, and H F is F without its column means.

With two classes H L H has rank one for every label kernel, and the solution is (mu_safe - mu_unsafe) / ||...|| exactly:
binary Supervised PCA is the difference of the class means, and there is no second component.
"""

from __future__ import annotations

import torch

from ..errors import SafetySteeringError
from ..linear_algebra import shrunk_solve

KERNELS = ("delta", "linear")
RANK_TOLERANCE = 1e-10  # of the largest singular value; smaller ones are rounding, not label information


def label_factor(labels: torch.Tensor, kernel: str = "delta") -> torch.Tensor:
    """F (n, r) float64 with L = F F^T, for labels (n, C): one column a category, 1 where it holds and 0 elsewhere.

    "linear" is L = Y Y^T, the number of categories that two rows share (multi-label, one against the rest).
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
        SafetySteeringError: all labels are the same, or the classes have the same mean.
    """
    factor = factor.double()
    u, strengths, _ = torch.linalg.svd(x.double().T @ (factor - factor.mean(dim=0)), full_matrices=False)
    rank = int((strengths > RANK_TOLERANCE * strengths.max()).sum()) if len(strengths) else 0
    if not rank:
        raise SafetySteeringError(
            "The labels do not vary or the classes have the same mean, so there is no direction. "
            "Capture prompts of both labels."
        )
    kept: torch.Tensor = u[:, : min(rank, components) if components > 0 else rank]
    return kept


def shrunk_lda(differences: torch.Tensor, x: torch.Tensor, unsafe: torch.Tensor, shrinkage: float) -> torch.Tensor:
    """Linear discriminants (m, D) float64, not of unit length: (S_w + lambda I)^-1 d with S_w the within-class scatter.

    It helps where a few channels of large variance dominate the mean difference. The solve is `shrunk_solve`.

    Args:
        differences: class differences d (m, D).
        x: states (n, D).
        unsafe: (n,) bool, the classes.
        shrinkage: lambda as a multiple of the mean eigenvalue of S_w.
    """
    centred = torch.cat([members - members.mean(dim=0) for members in (x[unsafe].double(), x[~unsafe].double())])
    return shrunk_solve(differences, centred, shrinkage)


def logistic_probe(unsafe: torch.Tensor, safe: torch.Tensor, inverse_penalty: float = 1.0) -> torch.Tensor:
    """The normal w (D,) float64, not of unit length, of a logistic regression of unsafe (n, D) and safe (m, D) states.

    It minimises ||w||^2 / 2 + C sum log(1 + exp(-y (<w, x> + b))) with scikit-learn and points towards safe. It is here
    for comparison: the axis that predicts a label best need not be the one that moves it.

    inverse_penalty: C, for states scaled so that the mean square over all channels is 1.
    """
    from sklearn.linear_model import LogisticRegression

    x = torch.cat([unsafe, safe]).double()
    x = x - x.mean(dim=0)
    x = x / x.square().mean().sqrt().clamp_min(torch.finfo(x.dtype).tiny)
    labels = torch.cat([torch.zeros(len(unsafe)), torch.ones(len(safe))]).numpy()
    probe = LogisticRegression(C=inverse_penalty, max_iter=2000).fit(x.numpy(), labels)
    return torch.from_numpy(probe.coef_[0].copy())


def without_length(x: torch.Tensor, lengths: torch.Tensor, unsafe: torch.Tensor) -> torch.Tensor:
    """States x (n, D) float64 without the linear effect of the prompts' lengths (n,); unsafe (n,) bool.

    Unsafe prompts tend to be longer, and length is not safety. The slope is fitted within the classes (analysis of
    covariance), so that it does not contain their difference:

        h_i <- h_i - b (l_i - mean l),   b = sum (l_i - mean l_class)(h_i - mu_class) / sum (l_i - mean l_class)^2

    Raises:
        SafetySteeringError: a length is unknown (0), or all prompts of each class have the same length.
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
            "Within each class all prompts have the same length, so the slope cannot be fitted. "
            "Switch length regression off."
        )
    # `within` sums to zero in each class, so the class means drop out of this product
    slope = within @ x / spread
    return x - (lengths - lengths.mean())[:, None] * slope
