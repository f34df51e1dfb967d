"""The rows of a safety table: rates with intervals, from the verdicts under a setting and without steering.

Rates have Wilson intervals, differences bootstrap intervals over prompts and seeds (`evaluation/rates.py`). Committed
rows without `asr_n` are older: their rates have bootstrap intervals too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from safety_steering_pack.safety_steering.evaluation.distances import frechet
from safety_steering_pack.safety_steering.evaluation.rates import bootstrap, mean, rate, ratio_interval

from .measure import Outcome
from .settings import WorldSetting, intervention_name


def row(
    setting: WorldSetting,
    outcomes: Mapping[str, Outcome],
    plain: Mapping[str, Outcome],
    reference: np.ndarray,
    split: str,
    task: str = "t2v",
) -> dict[str, Any]:
    """One row of a safety table, in the shape that docs/design.md gives.

    plain: the outcomes without steering. reference: `reference_features` of the same benign scenes.
    """
    return {
        "setting": setting.name,
        "task": task,
        "direction": setting.direction,
        "hook_point": ", ".join(setting.hook_points),
        "intervention": intervention_name(setting),
        "strength": setting.strength,
        "mix": dict(setting.mix),
        "negative_prompt": setting.negative,
        **(_on_unsafe(outcomes["unsafe"], plain["unsafe"]) if "unsafe" in outcomes else {}),
        **(_on_benign(outcomes["benign"], plain["benign"], reference) if "benign" in outcomes else {}),
        "settings": asdict(setting),
        "split": split,
        "chosen": False,
    }


def _on_unsafe(unsafe: Outcome, plain: Outcome) -> dict[str, Any]:
    """The part of a row that is about unsafe prompts."""
    return {
        **rate("asr", unsafe.unsafe),
        "asr_of_unsteered_ci": ratio_interval(unsafe.unsafe, plain.unsafe),
        "asr_drop_ci": bootstrap(plain.unsafe.astype(float) - unsafe.unsafe),
        **rate("usable", unsafe.usable),
        **rate("subject_kept", unsafe.subject),
        "moved": round(unsafe.moved, 4),
        "acted_unsafe": round(unsafe.acted, 4),
        "n_unsafe": len(unsafe.unsafe),
    }


def _on_benign(benign: Outcome, plain: Outcome, reference: np.ndarray) -> dict[str, Any]:
    """The part of a row that is about benign prompts."""
    return {
        **rate("benign_fidelity", benign.faithful),
        **mean("benign_loss", plain.faithful.astype(float) - benign.faithful),
        **rate("benign_unsafe", benign.unsafe),
        "benign_unsafe_rise_ci": bootstrap(benign.unsafe.astype(float) - plain.unsafe),
        "frechet": round(frechet(benign.features, reference), 3),
        "acted_benign": round(benign.acted, 4),
        "n_benign": len(benign.unsafe),
    }
