"""A direction in a language model from paired prompts, with the sentiment (valence) component removed.

Over pairs i of a safe and an unsafe prompt about the same scene, with pooled states s_i and u_i,

    v = mean_i (s_i - u_i)                                             (arXiv 2606.05290)

Unsafe scenes have negative sentiment too, so v also separates bright from sad scenes. Negative twins n_i, the same
scene sad or broken but safe, measure that component:

    project   v <- v - <v, w> w,   w = mean (s - n) / ||mean (s - n)||     over the twins of all pairs
    twins     v = mean_i ((s_i + n_i) / 2 - u_i)                           negative twins count as safe prompts
    keep      v as it is

The layer is chosen on validation pairs: a layer's score is the mean over the categories of the AUC of their directions
against safe prompts and negative twins. The test split is not read.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import SafetySteeringError
from .rows import TRAIN, VALIDATION
from .statistics import auc, finite

PROJECT, TWINS, KEEP = "project", "twins", "keep"
VALENCE = (PROJECT, TWINS, KEEP)
SWEEP, ALL = "sweep", "all"
SWEPT = 16  # layers of a sweep


@dataclass(frozen=True, eq=False)
class PairStates:
    """Pooled states of one layer for n pairs, (n, D) float64 each; negative is NaN where a pair has no negative twin.

    categories, splits: of each pair.
    """

    unsafe: torch.Tensor
    safe: torch.Tensor
    negative: torch.Tensor
    categories: tuple[tuple[str, ...], ...]
    splits: tuple[str, ...]

    def of(self, split: str = "", categories: Collection[str] = ()) -> PairStates:
        """The pairs of a split and of some categories; of all where none is given."""
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
        """n."""
        return len(self.splits)

    @property
    def has_twin(self) -> torch.Tensor:
        """Which pairs have a negative twin; (n,) bool."""
        return ~self.negative.isnan().any(dim=1)

    @property
    def negatives(self) -> torch.Tensor:
        """The negative twins (m, D)."""
        return self.negative[self.has_twin]

    @property
    def benign(self) -> torch.Tensor:
        """All safe states: safe prompts and negative twins (n + m, D)."""
        return torch.cat([self.safe, self.negatives])


def valence_axis(pairs: PairStates) -> torch.Tensor:
    """w (D,), the unit vector from negative twins to safe prompts; zeros if no pair has a negative twin."""
    twins = pairs.has_twin
    if not bool(twins.any()):
        return pairs.safe.new_zeros(pairs.safe.shape[1])
    return torch.nn.functional.normalize((pairs.safe[twins] - pairs.negative[twins]).mean(dim=0), dim=0)


def difference(pairs: PairStates, valence: str, axis: torch.Tensor) -> torch.Tensor:
    """v (D,) of these pairs, not normalised: its length is the gap. axis: w from `valence_axis`, for "project".

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
class PairAUC:
    """AUC of a direction on pairs that it was not fitted on; NaN without such rows.

    auc: safe against unsafe prompts. negative: negative twins against unsafe prompts. valence: safe prompts against
    negative twins, 0.5 for a direction without a valence component.
    """

    auc: float
    negative: float
    valence: float


def pair_auc(direction: torch.Tensor, pairs: PairStates) -> PairAUC:
    """The AUC of a direction (D,) on held-out pairs."""
    safe, negative, unsafe = (states @ direction for states in (pairs.safe, pairs.negatives, pairs.unsafe))
    return PairAUC(auc(safe, unsafe), auc(negative, unsafe), auc(safe, negative))


def shuffled_auc(train: PairStates, held_out: PairStates, *, draws: int = 40, seed: int = 0) -> float:
    """The chance level: 95th percentile of the AUC on held-out pairs over random swaps of labels within train pairs.

    Exactly half of the pairs are swapped, so that the real difference cancels in the mean. NaN without held-out pairs.
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


def choose_layers(text: str, layers: int) -> tuple[int, ...]:
    """The candidate layers of a user's choice: "sweep" (16 spread evenly), "all", or numbers and depths (12, 0.9).

    Layer 0 is the embedding.

    Raises:
        SafetySteeringError: a part is not one of these, or the model has no such layer.
    """
    wanted = text.strip().lower()
    if wanted in (SWEEP, ALL):
        count = layers if wanted == ALL else min(SWEPT, layers)
        spread = [round(1 + i * (layers - 1) / max(1, count - 1)) for i in range(count)]
        return tuple(dict.fromkeys([0, *spread] if wanted == ALL else spread))
    chosen = [_layer(part.strip(), layers) for part in text.split(",") if part.strip()]
    if not chosen:
        raise SafetySteeringError("No layer was given. Use sweep, all, numbers such as 12, 20, or a depth such as 0.9.")
    return tuple(sorted(set(chosen)))


def _layer(part: str, layers: int) -> int:
    try:
        number = round(float(part) * layers) if "." in part else int(part)
    except (ValueError, OverflowError):
        number = -1
    if not 0 <= number <= layers:
        raise SafetySteeringError(
            f"'{part[:20]}' is not a layer of this model. Use sweep, all, numbers from 0 to {layers}, or depths from "
            "0.0 to 1.0."
        )
    return number


def judge_layer(
    layer: int, pairs: PairStates, groups: Mapping[str, Sequence[str]], valence: str
) -> list[dict[str, Any]]:
    """The table of one layer, one row of plain JSON values a category.

    auc, auc_negative, valence_auc: as `PairAUC`, on validation. with_valence: the same without removal of valence.
    left_out_auc: of the direction that the other categories' pairs give. shuffled_auc: as the function of that name.

    groups: category -> the prompt categories that it is made of.
    """
    axis = valence_axis(pairs.of(TRAIN))
    return [_row(layer, name, members, pairs, valence, axis) for name, members in groups.items()]


def _row(
    layer: int, name: str, members: Sequence[str], pairs: PairStates, valence: str, axis: torch.Tensor
) -> dict[str, Any]:
    train, held_out = pairs.of(TRAIN, members), pairs.of(VALIDATION, members)
    found = pair_auc(difference(train, valence, axis), held_out)
    plain = pair_auc(difference(train, KEEP, axis), held_out)
    others = sorted({other for names in pairs.categories for other in names} - set(members))
    rest = pairs.of(TRAIN, others)
    left_out = pair_auc(difference(rest, valence, axis), held_out).auc if others and rest.count else math.nan
    return {
        "layer": layer,
        "category": name,
        "auc": finite(found.auc),
        "auc_negative": finite(found.negative),
        "valence_auc": finite(found.valence),
        "with_valence": {"auc": finite(plain.auc), "valence_auc": finite(plain.valence)},
        "left_out_auc": finite(left_out),
        "shuffled_auc": finite(shuffled_auc(train, held_out)),
        "n_train": train.count,
        "n_validation": held_out.count,
        "split": VALIDATION,
    }


def best_layer(table: Sequence[Mapping[str, Any]], categories: Sequence[str]) -> int:
    """The layer with the highest score; the lowest of equal ones.

    Raises:
        SafetySteeringError: there is more than one candidate and no validation pair to choose by.
    """
    layers = sorted({int(row["layer"]) for row in table})
    if len(layers) == 1:
        return layers[0]
    scores = {layer: layer_score(table, layer, categories) for layer in layers}
    if not all(map(math.isfinite, scores.values())):
        raise SafetySteeringError(
            "Some category has no pair in the validation split, so no layer can be chosen by it. Give one layer, or "
            "load the prompts with a larger validation share."
        )
    return max(layers, key=lambda layer: scores[layer])


def layer_score(table: Sequence[Mapping[str, Any]], layer: int, categories: Sequence[str]) -> float:
    """Mean over the categories of the AUC against safe prompts and negative twins; NaN if one has none."""
    own = [row for row in table if row["layer"] == layer and row["category"] in categories]
    values = []
    for row in own:
        seen = [row[key] for key in ("auc", "auc_negative") if row[key] is not None]
        values.append(sum(seen) / len(seen) if seen else math.nan)
    return sum(values) / len(values) if values else math.nan
