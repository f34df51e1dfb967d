"""A direction in a language model from paired prompts, and what gloom adds to it taken out.

Over pairs i of a safe and an unsafe prompt about the same scene, with pooled states s_i and u_i,

    v = mean_i (s_i - u_i)                                             (arXiv 2606.05290)

Unsafe scenes are gloomy too, so v is partly *valence*: it also tells a sunny scene from a sad one. Negative twins n_i,
the same scene sad or broken and safe all the same, show that part and let it be removed:

    project   v <- v - <v, w> w,   w = mean (s - n) / ||mean (s - n)||     over the twins of all pairs
    twins     v = mean_i ((s_i + n_i) / 2 - u_i)                           sad scenes count as safe ones
    keep      v as it is
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch

from ..errors import SafetySteeringError
from ..separability import auc

PROJECT, TWINS, KEEP = "project", "twins", "keep"
VALENCE = (PROJECT, TWINS, KEEP)


@dataclass(frozen=True, eq=False)
class PairStates:
    """Pooled states of one layer for n pairs, (n, D) float64 each; negative is NaN where a pair has no such twin.

    categories: of each pair, several joined as in `PromptRow.categories`. splits: of each pair.
    """

    unsafe: torch.Tensor
    safe: torch.Tensor
    negative: torch.Tensor
    categories: tuple[tuple[str, ...], ...]
    splits: tuple[str, ...]

    def of(self, split: str = "", categories: Collection[str] = ()) -> PairStates:
        """The pairs of a split, and of some categories; of all where none is given."""
        rows = [
            i
            for i, (own, names) in enumerate(zip(self.splits, self.categories, strict=True))
            if (not split or own == split) and (not categories or not set(names).isdisjoint(categories))
        ]
        return PairStates(
            self.unsafe[rows],
            self.safe[rows],
            self.negative[rows],
            tuple(self.categories[i] for i in rows),
            tuple(self.splits[i] for i in rows),
        )

    @property
    def count(self) -> int:
        return len(self.splits)

    @property
    def has_twin(self) -> torch.Tensor:
        """Which pairs have a negative twin; (n,) bool."""
        return ~self.negative.isnan().any(dim=1)

    @property
    def sad(self) -> torch.Tensor:
        """The negative twins that are there (m, D)."""
        return self.negative[self.has_twin]

    @property
    def benign(self) -> torch.Tensor:
        """Every state that is safe: safe prompts and negative twins (n + m, D)."""
        return torch.cat([self.safe, self.sad])


def valence_axis(pairs: PairStates) -> torch.Tensor:
    """The unit vector (D,) from sad to bright among safe prompts; zeros if no pair has a negative twin."""
    twins = pairs.has_twin
    if not bool(twins.any()):
        return pairs.safe.new_zeros(pairs.safe.shape[1])
    return torch.nn.functional.normalize((pairs.safe[twins] - pairs.negative[twins]).mean(dim=0), dim=0)


def difference(pairs: PairStates, valence: str, axis: torch.Tensor) -> torch.Tensor:
    """v (D,) of these pairs, unnormalised; its length is the gap. axis: from `valence_axis`, for "project".

    Raises:
        SafetySteeringError: there is no pair, or safe and unsafe states do not differ.
    """
    if not pairs.count:
        raise SafetySteeringError("There is no pair of a safe and an unsafe prompt to take a direction from.")
    benign = pairs.safe
    if valence == TWINS:
        benign = torch.where(pairs.has_twin[:, None], (pairs.safe + pairs.negative) / 2, pairs.safe)
    v = (benign - pairs.unsafe).mean(dim=0)
    if valence == PROJECT:
        v = v - (v @ axis) * axis
    if not float(v.norm()) > 1e-9 * float(pairs.safe.norm(dim=1).mean()):
        raise SafetySteeringError("Safe and unsafe prompts have the same mean state, so there is no direction.")
    return v


@dataclass(frozen=True)
class Told:
    """What a direction tells apart on pairs that it was not taken from: areas under the ROC, NaN without such rows.

    auc: safe from unsafe prompts. negative: negative twins from unsafe prompts. valence: safe prompts from negative
    twins, where 0.5 means that the direction does not see gloom.
    """

    auc: float
    negative: float
    valence: float


def tell(direction: torch.Tensor, pairs: PairStates) -> Told:
    """Judge a direction (D,) on held-out pairs."""
    safe, sad, unsafe = (states @ direction for states in (pairs.safe, pairs.sad, pairs.unsafe))
    return Told(_auc(safe, unsafe), _auc(sad, unsafe), _auc(safe, sad))


def _auc(higher: torch.Tensor, lower: torch.Tensor) -> float:
    return auc(higher, lower) if len(higher) and len(lower) else float("nan")


def shuffled_auc(train: PairStates, held_out: PairStates, *, draws: int = 40, seed: int = 0) -> float:
    """What chance reaches: the 95th percentile of the AUC on held-out pairs when the labels of a random half of the
    training pairs are swapped. NaN without held-out pairs.

    Exactly half, so that nothing of the real difference is left in the mean.
    """
    if train.count < 2 or not held_out.count:
        return float("nan")
    generator = torch.Generator().manual_seed(seed)
    half = torch.arange(train.count) % 2 * 2.0 - 1
    signs = torch.stack([half[torch.randperm(train.count, generator=generator)] for _ in range(draws)])
    directions = signs.double() @ (train.safe - train.unsafe)
    safe, unsafe = (states @ directions.T for states in (held_out.safe, held_out.unsafe))
    reached = [auc(safe[:, draw], unsafe[:, draw]) for draw in range(draws)]
    return float(torch.tensor(reached, dtype=torch.float64).quantile(0.95))
