"""Shrunk linear discriminant analysis: the remedy where a few channels of large variance dominate a mean difference.

    u ~ (lambda I + S_w)^-1 d,   lambda = shrinkage x mean eigenvalue of S_w

S_w is the pooled within-class covariance (Fisher's discriminant with a ridge, as in Friedman 1989).
"""

from __future__ import annotations

import torch


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
