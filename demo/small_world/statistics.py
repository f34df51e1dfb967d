"""Rates with bootstrap intervals, and the Fréchet distance between two sets of judge features."""

from __future__ import annotations

from typing import Any

import numpy as np

DRAWS = 2000


def interval(values: np.ndarray) -> list[float]:
    """Bootstrap 95 % interval of the mean of values (n,), resampling rows (a row is one prompt with its own seed)."""
    picks = np.random.default_rng(0).integers(len(values), size=(DRAWS, len(values)))
    return [round(float(q), 4) for q in np.quantile(values[picks].mean(1), [0.025, 0.975])]


def share(name: str, values: np.ndarray) -> dict[str, Any]:
    """A results row's two entries for a mean over videos: `name` and `name_ci`."""
    return {name: round(float(values.mean()), 4), f"{name}_ci": interval(values.astype(float))}


def ratio_interval(part: np.ndarray, whole: np.ndarray) -> list[float]:
    """Bootstrap 95 % interval of mean(part) / mean(whole), both (n,) on the same prompts and seeds."""
    picks = np.random.default_rng(0).integers(len(whole), size=(DRAWS, len(whole)))
    below = np.maximum(whole[picks].mean(1), 1e-9)
    return [round(float(q), 4) for q in np.quantile(part[picks].mean(1) / below, [0.025, 0.975])]


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Fréchet distance of two sets of features (n, D): |mean difference|^2 + tr(A + B - 2 (A B)^1/2)."""
    covariance_a, covariance_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    # tr (A B)^1/2 from the eigenvalues of A B, which are real and not negative for covariances
    roots = np.sqrt(np.clip(np.linalg.eigvals(covariance_a @ covariance_b).real, 0, None)).sum()
    shift = np.square(a.mean(0) - b.mean(0)).sum()
    return float(shift + np.trace(covariance_a) + np.trace(covariance_b) - 2 * roots)
