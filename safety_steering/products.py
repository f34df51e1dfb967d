"""Sums and projections of many states in float64, a stretch of rows at a time.

States are kept in float32, which holds them exactly as captured. A float64 copy of all of them would be most of what a
fit needs in memory, and making it most of the time; a stretch of rows stays in the processor's cache.
"""

from __future__ import annotations

import torch

ROWS_AT_ONCE = 256


def stretches(count: int) -> list[slice]:
    """`count` rows, a few at a time; one empty stretch if there are none."""
    return [slice(start, start + ROWS_AT_ONCE) for start in range(0, max(count, 1), ROWS_AT_ONCE)]


def weighted_sums(weights: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """weights @ x as (m, D) float64, for weights (m, n) float64 and states x (n, D)."""
    total = torch.zeros(len(weights), x.shape[1], dtype=torch.float64)
    for stretch in stretches(len(x)):
        total.addmm_(weights[:, stretch], x[stretch].double())
    return total


def projections(x: torch.Tensor, rows: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """<h, u> as (n,) float64 for the rows (n,) of states x (N, D) and u (D,) float64; NaN where a state has one."""
    return torch.cat([x[rows[stretch]].double() @ direction for stretch in stretches(len(rows))])


def norms(x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """||h|| as (n, K) float64 for the rows (n,) of states x (N, K, D)."""
    found = [torch.linalg.vector_norm(x[rows[stretch]].double(), dim=2) for stretch in stretches(len(rows))]
    return torch.cat(found)
