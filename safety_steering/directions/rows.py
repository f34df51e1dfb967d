"""Which rows of the activations a fit reads: by label, split, category and pair, and those a sigma bin has seen."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache

import torch

from ..activations import UNSAFE, Row, States
from ..linear_algebra import channel_scales


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


# --- What the benign rows of a hook point say: where they lie along a direction, how far they spread, a token's norm.


@dataclass(frozen=True, eq=False)
class Benign:
    """The benign rows of a hook point: their places in `states`, which are not copied. seen: (N, K) bool, of all."""

    states: States
    rows: torch.Tensor
    seen: torch.Tensor

    def count(self, k: int) -> int:
        """How many of them sigma bin k has seen."""
        return int(self.seen[self.rows, k].sum())

    def along(self, u: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """<h, u> in float64 of the pooled states, and of the tokens, that sigma bin k has seen; u (D,) float64."""
        found = (projections(states[:, k], self.rows, u) for states in (self.states.pooled, self.states.token))
        pooled, token = (values[~values.isnan()] for values in found)
        return pooled, token

    def scales(self, k: int) -> torch.Tensor:
        """The channels' standard deviations in sigma bin k, see `channel_scales`."""
        return channel_scales(self.states.pooled[self.rows[self.seen[self.rows, k]], k])

    def token_norm(self) -> torch.Tensor:
        """The median norm of a token, (K,) float32."""
        median: torch.Tensor = norms(self.states.token, self.rows).nanmedian(dim=0).values
        return median.float()


# --- Sums and projections of many states in float64, a stretch of rows at a time.
#
# States are kept in float32, which holds them exactly as captured. A float64 copy of all of them would be most of what
# a fit needs in memory, and making it most of the time; a stretch of rows stays in the processor's cache.


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


def strata(pairs: Sequence[str]) -> torch.Tensor:
    """A number for each row (n,), the same for rows of one pair; 0 for all rows without one."""
    numbers = {"": 0}
    return torch.tensor([numbers.setdefault(pair, len(numbers)) for pair in pairs], dtype=torch.long)
