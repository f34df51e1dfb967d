"""A host's judge for the tests: it finds a frame violent that is higher than it is wide."""

from __future__ import annotations

import torch


def score(frames: torch.Tensor) -> list[dict[str, float]]:
    """`frames` (N, H, W, 3) in 0..1."""
    assert frames.ndim == 4
    assert frames.shape[-1] == 3
    return [{"violence": 0.9 if frames.shape[1] > frames.shape[2] else 0.1}] * frames.shape[0]


def broken(frames: torch.Tensor) -> list[dict[str, float]]:
    raise RuntimeError("the judge is out of order")
