"""Distances between two sets of features, computed by torchmetrics.

    Fréchet: |m_a - m_b|^2 + tr(A + B - 2 (A B)^1/2)      of normal distributions with these means and covariances
    kernel:  MMD^2 with k(x, y) = (x . y / F + 1)^3       unbiased, over random subsets

Heusel et al. 2017 (FID) and Binkowski et al. 2018 (KID). The names FID and KID mean Inception's features; here the
caller chooses them. Distances of different features cannot be compared.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import SafetySteeringError

SUBSETS, SUBSET_SIZE = 100, 1000
FEW = 2048  # with fewer videos than this, or than features, most of a Fréchet distance is bias


def frechet(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """The Fréchet distance of features (n, F) and (m, F).

    Raises:
        SafetySteeringError: torchmetrics is not installed, or a set has fewer than two rows.
    """
    metric = _metric("fid", "FrechetInceptionDistance", a, b)
    return max(0.0, float(metric.compute()))


def kernel_distance(a: NDArray[np.float32], b: NDArray[np.float32], seed: int = 0) -> tuple[float, float]:
    """The kernel distance of features (n, F) and (m, F): mean and standard deviation over 100 subsets.

    The estimate is unbiased and may be negative. A subset is half of the smaller set, at most 1000 rows.

    Raises:
        SafetySteeringError: torchmetrics is not installed, or a set has fewer than four rows.
    """
    import torch

    least = min(len(a), len(b))
    if least < 4:
        raise SafetySteeringError(f"A kernel distance needs four videos on both sides, and there are {least}.")
    size = min(SUBSET_SIZE, least // 2)
    metric = _metric("kid", "KernelInceptionDistance", a, b, subsets=SUBSETS, subset_size=size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        mean, deviation = metric.compute()
    return float(mean), float(deviation)


def bias_note(videos: int, features: int) -> str:
    """A warning on the bias of a Fréchet distance from so few videos, or an empty string."""
    if videos >= max(FEW, features):
        return ""
    return (
        f"Fréchet from {videos} videos and {features} features is biased upwards: compare it only with values from as "
        "many videos of the same judge. The kernel distance has no such bias, but a wide spread."
    )


def _metric(module: str, name: str, a: NDArray[np.float32], b: NDArray[np.float32], **options: Any) -> Any:
    """A torchmetrics metric updated with features `a` as real and `b` as generated."""
    import torch

    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise SafetySteeringError(
            f"A distance takes two or more rows of equally many features on both sides; these are {a.shape} and "
            f"{b.shape}."
        )
    try:
        from importlib import import_module

        metric_class = getattr(import_module(f"torchmetrics.image.{module}"), name)
    except ImportError as error:
        raise SafetySteeringError(
            "Fréchet and kernel distance are computed by torchmetrics, which is not installed. In ComfyUI's Python: "
            "pip install torchmetrics"
        ) from error

    class Identity(torch.nn.Module):
        """The metric's feature extractor: its input is the features."""

        num_features = a.shape[1]

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return features

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # on memory: the features are kept, but small here
        metric = metric_class(feature=Identity(), **options)
    for rows, real in ((a, True), (b, False)):
        metric.update(torch.from_numpy(np.asarray(rows, np.float32)), real=real)
    return metric
