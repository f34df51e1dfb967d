"""Detectors from the text states of a capture: shrunk LDA on prompts' mean states, one a category.

A prompt's mean state tells best whether a theme is in it; which tokens then have to move is another question, and the
directions answer that one (`vectors.detector` has the equation of the gate).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..activations import SAFE, UNSAFE, Activations, Row, Source, States
from ..errors import SafetySteeringError
from ..hook_point import HookPoint
from ..vectors.detector import Detectors, make_detector
from ..vectors.suggestion import FALSE_ALARM
from .fitting import FitSettings, fit_states
from .merging import merged_bins
from .rows import TRAIN, VALIDATION, categories_of, projections, where
from .statistics import finite, held_out_auc

TEXT_STATES = HookPoint("conditioning")
SETTINGS = FitSettings(method="shrunk_lda")


@dataclass(frozen=True)
class FittedDetectors:
    """Detectors, and for each category what they do on the validation rows, plain JSON values.

    evidence: category -> `detector_auc`, the AUC between safe and unsafe prompts, and `detector_opens`, the share of
    unsafe prompts on which the gate opens at FALSE_ALARM; null without validation rows.
    """

    detectors: Detectors
    evidence: dict[str, dict[str, Any]]


def can_detect(source: Source) -> bool:
    """Whether a capture has what detectors read: the text states of the prompt itself."""
    return TEXT_STATES in source.hook_points and source.branch == "positive"


def fit_detectors(
    activations: Activations, rows: Sequence[Row], categories: Sequence[str], whole: str, benign: torch.Tensor | None
) -> FittedDetectors:
    """A detector for each category, from the train rows.

    Args:
        whole: a further category made of all the others together; none if empty.
        benign: (m, D) mean states of further benign prompts. The gate's thresholds are quantiles of these and of the
            benign train and validation rows.

    Raises:
        SafetySteeringError: as `fit_states` and `make_detector`, or `benign` has another width.
    """
    space, width = activations.source.hook_points[TEXT_STATES]
    states = merged_bins(activations.read(TEXT_STATES), 1)
    point, _ = fit_states(rows, states, categories, SETTINGS, space=space, sigma_edges=(0.0, 1.0), whole=whole)
    train, held_out = (_seen(states, where(rows, SAFE, split)) for split in (TRAIN, VALIDATION))
    diverse = torch.cat([train, held_out])
    if benign is not None:
        if benign.shape[1] != width:
            raise SafetySteeringError(
                f"The benign prompts' states have {benign.shape[1]} channels and the captured ones {width}. Connect "
                "the text encoder that the capture used."
            )
        diverse = torch.cat([diverse, benign])
    found = {
        name: make_detector(direction.direction[0], train, diverse) for name, direction in point.categories.items()
    }
    detectors = Detectors(TEXT_STATES, space, found, benign=len(diverse))
    return FittedDetectors(detectors, _evidence(rows, states, detectors, held_out_auc(rows, states, point)))


def _seen(states: States, rows: torch.Tensor) -> torch.Tensor:
    pooled = states.pooled[rows, 0]
    return pooled[~pooled.isnan().any(dim=1)]


def _evidence(
    rows: Sequence[Row], states: States, detectors: Detectors, aucs: dict[str, list[float]]
) -> dict[str, dict[str, Any]]:
    known = set[str]().union(*map(categories_of, rows))
    found: dict[str, dict[str, Any]] = {}
    for name, detector in detectors.categories.items():
        unsafe = where(rows, UNSAFE, VALIDATION, categories={name} if name in known else known)
        along = projections(states.pooled[:, 0], unsafe, detector.direction.double())
        z = (along[~along.isnan()] - detector.center) / detector.std
        opens = float((z < detector.threshold(FALSE_ALARM)).double().mean()) if len(z) else math.nan
        found[name] = {"detector_auc": finite(aucs[name][0]), "detector_opens": finite(opens)}
    return found
