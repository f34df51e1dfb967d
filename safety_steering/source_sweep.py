"""Which layer of a language model to take directions from: every candidate judged on held-out pairs.

A layer's score is the mean over the categories of how well their directions tell unsafe prompts from safe ones and from
negative twins, on validation pairs. The test split is not looked at.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .directions.pairs import KEEP, PairStates, difference, shuffled_auc, tell, valence_axis
from .errors import SafetySteeringError

TRAIN, VALIDATION = "train", "validation"
SWEEP, ALL = "sweep", "all"
SWEPT = 16


def choose_layers(text: str, layers: int) -> tuple[int, ...]:
    """The candidates that a user means: "sweep" (16 spread evenly), "all", or numbers and depths such as 12, 0.9.

    Raises:
        SafetySteeringError: a part is none of these, or the model has no such layer.
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
            f"'{part[:20]}' is no layer of this model. Use sweep, all, numbers from 0 to {layers}, or depths from 0.0 "
            "to 1.0."
        )
    return number


def judge_layer(
    layer: int, pairs: PairStates, groups: Mapping[str, Sequence[str]], valence: str
) -> list[dict[str, Any]]:
    """One row of plain JSON values a category: see `_row`.

    groups: category -> the prompt categories that it is made of.
    """
    axis = valence_axis(pairs.of(TRAIN))
    return [_row(layer, name, members, pairs, valence, axis) for name, members in groups.items()]


def _row(
    layer: int, name: str, members: Sequence[str], pairs: PairStates, valence: str, axis: torch.Tensor
) -> dict[str, Any]:
    """auc, auc_negative, valence_auc: as `Told`, on validation. with_valence: the same with nothing removed.
    left_out_auc: of the direction that the other categories' pairs give. shuffled_auc: as the function of that name.
    """
    train, held_out = pairs.of(TRAIN, members), pairs.of(VALIDATION, members)
    told = tell(difference(train, valence, axis), held_out)
    plain = tell(difference(train, KEEP, axis), held_out)
    others = sorted({other for names in pairs.categories for other in names} - set(members))
    rest = pairs.of(TRAIN, others)
    left_out = tell(difference(rest, valence, axis), held_out).auc if others and rest.count else math.nan
    return {
        "layer": layer,
        "category": name,
        "auc": _number(told.auc),
        "auc_negative": _number(told.negative),
        "valence_auc": _number(told.valence),
        "with_valence": {"auc": _number(plain.auc), "valence_auc": _number(plain.valence)},
        "left_out_auc": _number(left_out),
        "shuffled_auc": _number(shuffled_auc(train, held_out)),
        "n_train": train.count,
        "n_validation": held_out.count,
        "split": VALIDATION,
    }


def _number(value: float) -> float | None:
    """None where nothing could be measured: JSON has no NaN."""
    return value if math.isfinite(value) else None


def best_layer(table: Sequence[Mapping[str, Any]], categories: Sequence[str]) -> int:
    """The layer with the highest score; the shallowest of equal ones.

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
