"""Fits a map by the method's name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from ..alignment.linear import fit_ridge
from ..alignment.maps import SpaceMap
from ..alignment.mlp import fit_mlp
from .orthogonal import fit_orthogonal
from .reduced_rank import fit_reduced_rank

if TYPE_CHECKING:
    from ..alignment_settings import AlignmentSettings


def fit_map(
    x: torch.Tensor, y: torch.Tensor, settings: AlignmentSettings, tick: Callable[[], None] = lambda: None
) -> SpaceMap:
    """The map from x (n, D_s) to y (n, D_t), both centred and standardised. tick: called now and then."""
    tick()
    if settings.method == "ridge":
        return fit_ridge(x, y)
    if settings.method == "orthogonal":
        return fit_orthogonal(x, y)
    if settings.method == "reduced_rank":
        return fit_reduced_rank(x, y, rank=settings.rank, seed=settings.seed)
    return fit_mlp(x, y, hidden=settings.hidden, seed=settings.seed, tick=tick)
