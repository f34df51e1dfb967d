"""A split inside the fit's own rows, for what a method has to choose by itself."""

from __future__ import annotations

import torch

SHARE = 0.2


def inner_split(rows: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices of the rows to fit on and of those to choose by (a fifth, at least one), drawn by `seed`."""
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    count = max(1, round(SHARE * rows))
    return order[count:], order[:count]
