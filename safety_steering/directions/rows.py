"""Which rows of the activations a fit reads, and sums over their states.

States stay in float32, as captured. Sums and projections are float64 and read a few rows at a time: a float64 copy
of all states would be most of a fit's memory and time, and few rows stay in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache

import torch

from ..activations import UNSAFE, Row, States
from ..linear_algebra import channel_scales

TRAIN, VALIDATION = "train", "validation"
ROWS_AT_ONCE = 256
MOST_TOKENS = 4096  # benign tokens that a scatter or a scale is taken of


@dataclass(frozen=True, eq=False)
class Classes:
    """Both classes of one category in one sigma bin: the n rows that were captured there.

    x: (n, D) pooled states. unsafe: (n,) bool. groups: (n,) pair numbers, as of `strata`. videos: (n,) numbers, shared
    by the frames of one video. lengths: (n,) of the prompts, in words.
    """

    x: torch.Tensor
    unsafe: torch.Tensor
    groups: torch.Tensor
    videos: torch.Tensor
    lengths: torch.Tensor


@dataclass(frozen=True, eq=False)
class Benign:
    """The benign rows of a hook point. rows: (n,) indices into `states`. seen: (N, K) bool, of all rows of `states`.

    If the states have `tokens`, they are what is known of single tokens, else `token`.
    """

    states: States
    rows: torch.Tensor
    seen: torch.Tensor

    def count(self, k: int) -> int:
        """How many of them were captured in sigma bin k."""
        return int(self.seen[self.rows, k].sum())

    def along(self, u: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """<h, u> float64 of the pooled and of the token states captured in sigma bin k; u (D,) float64."""
        pooled = projections(self.states.pooled[:, k], self.rows, u)
        if self.states.tokens is None:
            token = projections(self.states.token[:, k], self.rows, u)
        else:
            token = along_tokens(self.states.tokens[:, k], self.rows, u)
        return pooled[~pooled.isnan()], token[~token.isnan()]

    def scales(self, k: int) -> torch.Tensor:
        """`channel_scales` (D,) in sigma bin k."""
        if self.states.tokens is not None:
            return channel_scales(self.some_tokens(k))
        return channel_scales(self.states.pooled[self.rows[self.seen[self.rows, k]], k])

    def some_tokens(self, k: int) -> torch.Tensor:
        """At most MOST_TOKENS of the rows' `tokens` in sigma bin k, evenly spread, (m, D) float64."""
        assert self.states.tokens is not None
        tokens = self.states.tokens[:, k]
        there = ~tokens[self.rows, :, 0].isnan()
        found = there.nonzero()
        found = found[torch.linspace(0, len(found) - 1, min(MOST_TOKENS, len(found))).long()]
        return tokens[self.rows[found[:, 0]], found[:, 1]].double()

    def token_norm(self) -> torch.Tensor:
        """The median norm of a token state, (K,) float32."""
        chunks = torch.split(self.rows, ROWS_AT_ONCE)
        norms = [torch.linalg.vector_norm(self.states.token[some].double(), dim=2) for some in chunks]
        median: torch.Tensor = torch.cat(norms).nanmedian(dim=0).values
        return median.float()


def categories_of(row: Row) -> frozenset[str]:
    """The categories of a row; several are written with commas between them."""
    return _names(row.category)


@cache
def _names(category: str) -> frozenset[str]:
    return frozenset(name.strip() for name in category.split(","))


def where(
    rows: Sequence[Row], label: str, split: str, *, categories: Collection[str] = (), pairs: Collection[str] = ()
) -> torch.Tensor:
    """Indices (n,) of the rows of a label and split; only of some categories or pairs, if these are given."""
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


def seen_in(pooled: torch.Tensor) -> torch.Tensor:
    """Which rows of states (n, K, D) were captured in which sigma bin: (n, K) bool; NaN marks what was not."""
    return torch.cat([~some.isnan().any(dim=2) for some in torch.split(pooled, ROWS_AT_ONCE)])


def classes_of(rows: Sequence[Row], pooled: torch.Tensor, k: int, chosen: torch.Tensor, seen: torch.Tensor) -> Classes:
    """Both classes in sigma bin k, from those of the chosen rows that were captured there; seen: from `seen_in`."""
    used = chosen[seen[chosen, k]]
    own = [rows[i] for i in used.tolist()]
    videos: dict[str | int, int] = {}
    return Classes(
        x=pooled[used, k],
        unsafe=torch.tensor([row.label == UNSAFE for row in own], dtype=torch.bool),
        groups=strata([row.pair for row in own]),
        videos=torch.tensor([videos.setdefault(row.video or i, len(videos)) for i, row in enumerate(own)]).long(),
        lengths=torch.tensor([row.length for row in own], dtype=torch.float64),
    )


def strata(pairs: Sequence[str]) -> torch.Tensor:
    """A number for each row (n,), the same for rows of one pair; 0 for all rows without a pair."""
    numbers = {"": 0}
    return torch.tensor([numbers.setdefault(pair, len(numbers)) for pair in pairs], dtype=torch.long)


def weighted_sums(weights: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """weights @ x as (m, D) float64, for weights (m, n) float64 and states x (n, D)."""
    total = torch.zeros(len(weights), x.shape[1], dtype=torch.float64)
    for some, own in zip(torch.split(weights, ROWS_AT_ONCE, dim=1), torch.split(x, ROWS_AT_ONCE), strict=True):
        total.addmm_(some, own.double())
    return total


def projections(x: torch.Tensor, rows: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """<h, u> as (n,) float64 for the rows (n,) of states x (N, D) and u (D,) float64; NaN where a state has one."""
    return torch.cat([x[some].double() @ direction for some in torch.split(rows, ROWS_AT_ONCE)])


def along_tokens(
    tokens: torch.Tensor, rows: torch.Tensor, direction: torch.Tensor, chosen: torch.Tensor | None = None
) -> torch.Tensor:
    """<h, u> (m,) float64 of the tokens of some rows (n,) of tokens (N, T, D), without missing ones; u (D,).

    chosen: (N, T) boolean, which of them; None: all.
    """
    found = [torch.empty(0, dtype=torch.float64)]
    for i in rows.tolist():
        values = (tokens[i].float() @ direction.float()).double()
        kept = ~values.isnan() if chosen is None else chosen[i] & ~values.isnan()
        found.append(values[kept])
    return torch.cat(found)
