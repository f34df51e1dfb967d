"""A native safety vector from a folder of activations, with its statistics table and provenance.

One hook point is in memory at a time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from ..activations import SAFE, UNSAFE, Activations, Row, Source
from ..errors import SafetySteeringError
from ..hook_point import HookPoint, depth, select_hook_points
from ..linear_algebra import outlier_share
from ..vectors.suggestion import ACTING, NATIVE, recommended
from ..vectors.vector import DIFFERING, WHOLE, HookPointDirections, SafetyVector, Suggestion, VectorInfo
from .detectors import TEXT_STATES, can_detect, fit_detectors
from .differing import differing_tokens, token_aucs
from .fitting import FitSettings, fit_states
from .merging import merged_bins, merged_edges, merged_tokens
from .rows import TRAIN, VALIDATION, categories_of
from .statistics import Statistics, finite, held_out_auc

NOT_DETECTED = {"detector_auc": None, "detector_opens": None}


@dataclass(frozen=True)
class Fitted:
    """A fitted vector and its statistics: one row per hook point, category and sigma bin, plain JSON values.

    auc is null where the validation split has no rows, depth where a hook point is not a block of a counted list,
    token_auc for a direction of pooled states, and what is about detectors everywhere but at the text states.
    """

    vector: SafetyVector
    table: tuple[dict[str, Any], ...]


def fit_vector(
    activations: Activations,
    settings: FitSettings,
    *,
    categories: Sequence[str] = (),
    bins: int = 0,
    benign: torch.Tensor | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Fitted:
    """Fit a native vector on the train rows and measure it on the validation rows.

    It suggests the family default, with a gate that fits how far apart the classes are (`gate_threshold`). It has
    detectors if the text states were captured; then the gate `prompt` is suggested, and one direction for all
    categories, if it was fitted on differing tokens.

    Args:
        categories: which to fit; all that have unsafe train rows if empty. With two or more, a category "all" of them
            together is fitted too; it is not in the vector's mix.
        bins: number of sigma bins of the vector; 0 as captured, else a divisor of that, neighbours being averaged.
        benign: (m, D) mean text states of further benign prompts, for the detectors' thresholds (`fit_detectors`).
        progress: called after each hook point with how many are done, of how many; what it raises ends the fit.

    Raises:
        SafetySteeringError: rows or a category are missing, `bins` is not a divisor, or as `fit_states`.

    Example:
        >>> from tempfile import mkdtemp
        >>> import torch
        >>> from safety_steering import fit_vector
        >>> from safety_steering.activations import Activations, Row, Source, States
        >>> from safety_steering.directions.fitting import FitSettings
        >>> states = torch.randn(60, 1, 16)  # rows, sigma bins, channels; yours come from Capture Activations
        >>> states[1::2, :, 0] -= 4  # every second prompt is unsafe, and lower along channel 0
        >>> rows = [
        ...     Row(str(i), ("safe", "unsafe")[i % 2], "violence", split="train" if i < 40 else "validation")
        ...     for i in range(60)
        ... ]
        >>> activations = Activations.create(mkdtemp(), Source({"conditioning": ("my-encoder", 16)}, (0.0, 1.0)))
        >>> activations.append(rows, {"conditioning": States(states, states)})
        >>> vector = fit_vector(activations, FitSettings()).vector
        >>> bool(vector.at("conditioning").categories["violence"].direction[0, 0] > 0.9)
        True
    """
    source, rows = activations.source, activations.rows()
    chosen = _choose(rows, categories)
    whole = WHOLE if len(chosen) > 1 and WHOLE not in chosen else ""
    edges = merged_edges(source.sigma_edges, bins)
    detecting = None
    if can_detect(source):
        space, text = source.hook_points[TEXT_STATES][0], activations.read(TEXT_STATES)
        detecting = fit_detectors(rows, text, space, chosen, whole=whole, benign=benign)
    points: dict[HookPoint, HookPointDirections] = {}
    table: list[dict[str, Any]] = []
    for done, name in enumerate(source.hook_points, start=1):
        points[name], found = _fit_point(activations, rows, name, chosen, settings, edges, whole)
        of_detectors = detecting.evidence if detecting and name == TEXT_STATES else {}
        table += [row | of_detectors.get(row["category"], NOT_DETECTED) for row in found]
        progress(done, len(source.hook_points))
    vector = SafetyVector(
        points,
        _info(source, rows, chosen, settings, points, table),
        detectors=detecting.detectors if detecting else None,
    )
    suggestion = _suggestion(vector, benign is not None)
    return Fitted(vector.with_mix(suggestion.mix).with_info(suggestion=suggestion), tuple(table))


def _suggestion(vector: SafetyVector, diverse: bool) -> Suggestion:
    """The family default, its gate's threshold fitted to this vector. diverse: detectors know diverse benign prompts.

    Without those, the quantiles of the detectors are of prompts that are all alike, and open the gate too often.
    """
    found = recommended(vector)
    if found.gate != ACTING.gate:
        return replace(found, threshold=gate_threshold(vector, found.hook_points))
    if WHOLE in vector.categories:
        found = replace(found, mix={WHOLE: 1.0})
    return found if diverse else replace(found, false_alarm=0.0)


def gate_threshold(vector: SafetyVector, hook_points: Sequence[str]) -> float:
    """A threshold for a pooled gate, in benign standard deviations: half way between the two class means.

    That is where two normal classes of equal spread are told apart with the fewest errors. The category and sigma bin
    that separate least decide, so that the gate opens for all. It is never below the family default, which opened on
    99.7 % of unsafe prompts and on 3.5 % of benign ones in the small world, and never above -1.
    """
    shares = [
        direction.gap / direction.std_pooled.clamp_min(torch.finfo(torch.float32).tiny)
        for name in map(HookPoint, hook_points)
        for category, direction in vector.at(name).categories.items()
        if vector.mix.get(category)
    ]
    half = float(torch.cat(shares).min()) / 2
    return min(-1.0, max(NATIVE.threshold, -half))


def _fit_point(
    activations: Activations,
    rows: Sequence[Row],
    name: HookPoint,
    categories: Sequence[str],
    settings: FitSettings,
    edges: Sequence[float],
    whole: str,
) -> tuple[HookPointDirections, list[dict[str, Any]]]:
    """One hook point and its rows of the table. Its states are freed before the next hook point's are read."""
    source, bins = activations.source, len(edges) - 1
    states = activations.read(name, tokens=settings.tokens == DIFFERING)
    differing = None
    if settings.tokens == DIFFERING:
        differing = merged_tokens(differing_tokens(rows, states, text=name.is_text), bins)
    states = merged_bins(states, bins)
    space = source.hook_points[name][0]
    point, statistics = fit_states(
        rows,
        states,
        categories,
        settings,
        space=space,
        sigma_edges=edges,
        split=TRAIN,
        whole=whole,
        differing=differing,
    )
    aucs = held_out_auc(rows, states, point, split=VALIDATION)
    of_tokens = {} if differing is None else token_aucs(rows, states, differing, point, split=VALIDATION)
    return point, _table(name, point, statistics, aucs, of_tokens, source)


def _choose(rows: Sequence[Row], categories: Sequence[str]) -> tuple[str, ...]:
    train = [row for row in rows if row.split == TRAIN]
    known = tuple(dict.fromkeys(name for row in train if row.label == UNSAFE for name in sorted(categories_of(row))))
    if not known or not any(row.label == SAFE for row in train):
        raise SafetySteeringError(
            f"The activations have {len(rows)} rows, {len(train)} of them in the train split, and not both safe and "
            "unsafe ones among these. Capture prompts of both labels with a train split."
        )
    missing = [name for name in categories if name not in known]
    if missing:
        raise SafetySteeringError(
            f"No unsafe train row has the category '{missing[0]}'. There are: {', '.join(known)}."
        )
    return tuple(categories) or known


def _table(
    name: HookPoint,
    point: HookPointDirections,
    statistics: dict[str, list[Statistics]],
    aucs: dict[str, list[float]],
    token_aucs: dict[str, list[float]],
    source: Source,
) -> list[dict[str, Any]]:
    counted = name.list in source.block_counts
    where = round(depth(name, source.block_counts), 4) if counted else None
    rows = []
    for category, direction in point.categories.items():
        for k, (one, auc) in enumerate(zip(statistics[category], aucs[category], strict=True)):
            confidence = one.confidence
            rows.append(
                {
                    "hook_point": name,
                    "depth": where,
                    "category": category,
                    "sigma": [float(edge) for edge in point.sigma_edges[k : k + 2]],
                    "tokens": one.tokens,
                    "auc": finite(auc),
                    "token_auc": finite(token_aucs[category][k]) if one.tokens == DIFFERING else None,
                    "gap": float(direction.gap[k]),
                    "std_pooled": float(direction.std_pooled[k]),
                    "std_token": float(direction.std_token[k]),
                    "token_norm": float(point.token_norm[k]),
                    "outlier_share": outlier_share(direction.direction[k]),
                    "halves_cosine": finite(confidence.mean) if confidence else None,
                    "halves_cosine_low": finite(confidence.low) if confidence else None,
                    "p_value": one.p_value,
                    "n_unsafe": one.unsafe,
                    "n_safe": one.safe,
                    "split": VALIDATION,
                }
            )
    return rows


def _info(
    source: Source,
    rows: Sequence[Row],
    categories: Sequence[str],
    settings: FitSettings,
    points: dict[HookPoint, HookPointDirections],
    table: Sequence[dict[str, Any]],
) -> VectorInfo:
    # the statistics of the hook point that Apply selects: the best one on validation would be quoted too favourably
    selected = select_hook_points("auto", points, source.block_counts)
    hook_point = selected[len(selected) // 2]
    own = [row for row in table if row["hook_point"] == hook_point]
    names = list(points[hook_point].categories)
    per_category = {name: [row for row in own if row["category"] == name] for name in names}
    aucs = {name: [row["auc"] for row in found if row["auc"] is not None] for name, found in per_category.items()}
    parameters = {**asdict(settings), "sigma_bins": points[hook_point].bins}
    step = {
        "step": "fit",
        "rows": len(rows),
        "captured_on": source.model_name,
        "evidence_at": hook_point,
        "evidence": own,
    }
    return VectorInfo(
        kind="native",
        gap_kind="measured",
        family=source.family,
        model_name=source.model_name,
        weight_fingerprint=source.weight_fingerprint,
        block_counts=source.block_counts,
        pooling=source.pooling,
        branch=source.branch,
        method=settings.method,
        parameters=parameters,
        counts={
            name: {"unsafe": max(row["n_unsafe"] for row in found), "safe": max(row["n_safe"] for row in found)}
            for name, found in per_category.items()
        },
        prompts_sha256=rows_sha256(rows),
        validation_auc={name: sum(values) / len(values) for name, values in aucs.items() if values},
        suggestion=Suggestion(mix=dict.fromkeys(categories, 1.0)),
        provenance=(step,),
    )


def rows_sha256(rows: Sequence[Row]) -> str:
    """Hash of the captured rows in any order. A row's id contains its prompt's hash, so this identifies the prompts."""
    content = [[row.id, row.label, row.category, row.pair, row.split, row.length] for row in rows]
    return hashlib.sha256(json.dumps(sorted(content)).encode()).hexdigest()
