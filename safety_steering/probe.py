"""A logistic probe, for comparison: the axis that predicts the label best, which need not be the one that moves it.

Minimises ||w||^2 / 2 + C sum log(1 + exp(-y (<w, x> + b))) with scikit-learn; u = w / ||w||.
"""

from __future__ import annotations

import torch


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
