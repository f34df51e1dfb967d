"""Detectors from the text states of a capture: shrunk LDA on prompts' mean states, one a category.

A prompt's mean state tells best whether a theme is in it; which tokens then have to move is another question, and the
directions answer that one (`vectors.detector` has the equation of the gate). With the difference d of the class means
of the twins, a detector is

    w = (S + lambda tr(S) / D I)^-1 d,   S = S_w / n + S_b / m

S_w is the scatter of the n twins within their classes, and S_b that of m further benign prompts, diverse ones, about
the mean of the captured benign ones. Prompts of a fit are alike: along a w of S_w alone, harmless prompts of other
kinds scatter widely, and the gate opens on them (docs/fitting.md has the numbers).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..activations import SAFE, UNSAFE, Row, Source, States
from ..errors import SafetySteeringError
from ..hook_point import HookPoint
from ..linear_algebra import ShrunkScatter
from ..vectors.detector import LEVELS, Detector, Detectors, make_detector
from ..vectors.suggestion import ACTING
from .merging import merged_bins
from .rows import TRAIN, VALIDATION, categories_of, where
from .statistics import auc, finite

TEXT_STATES = HookPoint("conditioning")
SHRINKAGE, SHRINKAGE_DIVERSE = 1.0, 0.1


@dataclass(frozen=True)
class FittedDetectors:
    """Detectors, and for each category what they do on the validation rows, plain JSON values.

    evidence: category -> `detector_auc`, the AUC between safe and unsafe prompts, and `detector_opens`, the share of
    unsafe prompts on which the gate opens at the recommended false alarm; null without validation rows.
    """

    detectors: Detectors
    evidence: dict[str, dict[str, Any]]


def can_detect(source: Source) -> bool:
    """Whether a capture has what detectors read: the text states of the prompt itself."""
    return TEXT_STATES in source.hook_points and source.branch == "positive"


def fit_detectors(
    rows: Sequence[Row],
    states: States,
    space: str,
    categories: Sequence[str],
    *,
    whole: str = "",
    benign: torch.Tensor | None = None,
) -> FittedDetectors:
    """A detector for each category, from the train rows.

    Args:
        rows: N rows.
        states: their text states, (N, K, D).
        space: id of the space that the states are in.
        whole: a further category made of all the others together; none if empty.
        benign: (m, D) mean states of further, diverse benign prompts. The gate's thresholds are quantiles of these and
            of the benign train and validation rows.

    Raises:
        SafetySteeringError: there are too few rows, as `make_detector`, or `benign` has another width.
    """
    states = merged_bins(states, 1)
    width = states.pooled.shape[2]
    if benign is not None and benign.shape[1] != width:
        raise SafetySteeringError(
            f"The benign prompts' states have {benign.shape[1]} channels and the captured ones {width}. Connect "
            "the text encoder that the capture used."
        )
    train, held_out = (_seen(states, where(rows, SAFE, split)) for split in (TRAIN, VALIDATION))
    diverse = torch.cat([train, held_out] + ([] if benign is None else [benign.float()]))
    around = None if benign is None else benign.double() - train.double().mean(dim=0)
    groups = {name: {name} for name in categories} | ({whole: set(categories)} if whole else {})
    found = {name: make_detector(_discriminant(rows, states, some, around), train) for name, some in groups.items()}
    # one threshold for all, so that the false alarm is the vector's: the share of prompts that open it for any category
    lowest = torch.stack([_z(one, diverse.double()) for one in found.values()]).amin(dim=0)
    quantiles = torch.quantile(lowest, torch.tensor(LEVELS, dtype=torch.float64)).float()
    found = {name: replace(one, quantiles=quantiles) for name, one in found.items()}
    detectors = Detectors(TEXT_STATES, space, found, benign=len(diverse))
    return FittedDetectors(detectors, _evidence(rows, states, detectors))


def _discriminant(
    rows: Sequence[Row], states: States, categories: Collection[str], around: torch.Tensor | None
) -> torch.Tensor:
    """w (D,) float64 of this module's equation. around: (m, D) further benign states without the benign mean."""
    bad = where(rows, UNSAFE, TRAIN, categories=categories)
    twins = {rows[i].pair for i in bad.tolist()} - {""}
    unsafe, safe = (_seen(states, some).double() for some in (bad, where(rows, SAFE, TRAIN, pairs=twins)))
    if min(len(unsafe), len(safe)) < 2:
        raise SafetySteeringError(
            f"A detector of {', '.join(categories)} needs 2 unsafe and 2 safe train rows with text states, and there "
            f"are {len(unsafe)} and {len(safe)}. Capture more prompts."
        )
    within = torch.cat([unsafe - unsafe.mean(dim=0), safe - safe.mean(dim=0)])
    scatter = ShrunkScatter(within, SHRINKAGE)
    if around is not None:
        parts = [one / math.sqrt(len(one)) for one in (within, around)]
        scatter = ShrunkScatter(torch.cat(parts), SHRINKAGE_DIVERSE)
    return scatter.solve((safe.mean(dim=0) - unsafe.mean(dim=0))[None])[0]


def _z(detector: Detector, states: torch.Tensor) -> torch.Tensor:
    """Distances (n,) float64 of states (n, D) from the benign mean, in standard deviations."""
    return (states @ detector.direction.double() - detector.center) / detector.std


def _seen(states: States, rows: torch.Tensor) -> torch.Tensor:
    pooled = states.pooled[rows, 0]
    return pooled[~pooled.isnan().any(dim=1)]


def _evidence(rows: Sequence[Row], states: States, detectors: Detectors) -> dict[str, dict[str, Any]]:
    known = set[str]().union(*map(categories_of, rows))
    safe = _seen(states, where(rows, SAFE, VALIDATION)).double()
    found: dict[str, dict[str, Any]] = {}
    for name, detector in detectors.categories.items():
        bad = where(rows, UNSAFE, VALIDATION, categories={name} if name in known else known)
        z = _z(detector, _seen(states, bad).double())
        opens = float((z < detector.threshold(ACTING.false_alarm)).double().mean()) if len(z) else math.nan
        found[name] = {"detector_auc": finite(auc(_z(detector, safe), z)), "detector_opens": finite(opens)}
    return found
