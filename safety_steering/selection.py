"""Which rows of the activations a fit reads: by label, split, category and pair, and those a sigma bin has seen."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch

from .activations import UNSAFE, Row
from .evidence import strata


@dataclass(frozen=True, eq=False)
class Classes:
    """Both classes of one category in one sigma bin, as rows that were seen: x (n, D) float64, unsafe (n,) bool.

    groups: the pairs, as `strata` numbers them. lengths: (n,) of the prompts.
    """

    x: torch.Tensor
    unsafe: torch.Tensor
    groups: torch.Tensor
    lengths: torch.Tensor


def categories_of(row: Row) -> set[str]:
    """The categories of a row; several are written with commas between them."""
    return {name.strip() for name in row.category.split(",")}


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


def classes_of(rows: Sequence[Row], pooled: torch.Tensor, k: int) -> Classes:
    """Both classes in sigma bin k, without the rows that were never seen there."""
    seen = ~pooled[:, k].isnan().any(dim=1)
    return Classes(
        x=pooled[seen, k].double(),
        unsafe=torch.tensor([row.label == UNSAFE for row in rows], dtype=torch.bool)[seen],
        groups=strata([row.pair for row in rows])[seen],
        lengths=torch.tensor([row.length for row in rows], dtype=torch.float64)[seen],
    )


def seen_rows(states: torch.Tensor) -> torch.Tensor:
    """The rows that were seen, in float64."""
    return states[~states.isnan().any(dim=1)].double()
