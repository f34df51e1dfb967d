"""Which rows of the activations a fit reads: by label, split, category and pair, and those a sigma bin has seen."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache

import torch

from ..activations import UNSAFE, Row
from ..products import stretches
from .evidence import strata


@dataclass(frozen=True, eq=False)
class Classes:
    """Both classes of one category in one sigma bin, as rows that were seen: x (n, D), unsafe (n,) bool.

    groups: the pairs, as `strata` numbers them. videos: a number for each, shared by the frames of one. lengths: (n,)
    of the prompts.
    """

    x: torch.Tensor
    unsafe: torch.Tensor
    groups: torch.Tensor
    videos: torch.Tensor
    lengths: torch.Tensor


def categories_of(row: Row) -> frozenset[str]:
    """The categories of a row; several are written with commas between them."""
    return _names(row.category)


@cache
def _names(category: str) -> frozenset[str]:
    return frozenset(name.strip() for name in category.split(","))


def where(
    rows: Sequence[Row], label: str, split: str, *, categories: Collection[str] = (), pairs: Collection[str] = ()
) -> torch.Tensor:
    """Indices of the rows of a label and split; of some categories or pairs only, where these are given."""
    return torch.tensor(
        [
            i
            for i, row in enumerate(rows)
            if row.label == label
            and row.split == split
            and (not categories or not categories_of(row).isdisjoint(categories))
            and (not pairs or row.pair in pairs)
        ],
        dtype=torch.long,
    )


def classes_of(rows: Sequence[Row], pooled: torch.Tensor, k: int, chosen: torch.Tensor, seen: torch.Tensor) -> Classes:
    """Both classes in sigma bin k, of the rows that are chosen and that `seen`, from `seen_in`, has there."""
    used = chosen[seen[chosen, k]]
    own = [rows[i] for i in used.tolist()]
    return Classes(
        x=pooled[used, k],
        unsafe=torch.tensor([row.label == UNSAFE for row in own], dtype=torch.bool),
        groups=strata([row.pair for row in own]),
        videos=numbered(own),
        lengths=torch.tensor([row.length for row in own], dtype=torch.float64),
    )


def numbered(rows: Sequence[Row]) -> torch.Tensor:
    """A number for each row (n,), the same for the frames of one video."""
    numbers: dict[str | int, int] = {}
    found = [numbers.setdefault(row.video or i, len(numbers)) for i, row in enumerate(rows)]
    return torch.tensor(found, dtype=torch.long)


def seen_in(pooled: torch.Tensor) -> torch.Tensor:
    """Which rows of states (n, K, D) were seen in which sigma bin: (n, K) bool."""
    return torch.cat([~pooled[stretch].isnan().any(dim=2) for stretch in stretches(len(pooled))])
