"""What a calibration leaves behind: its table, a summary for people, and the suggestion in the vector."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ..vectors.vector import SafetyVector, Suggestion
from .calibrate import Calibration
from .outcome import Outcome
from .space import UNSTEERED, Setting, describe_intervention, place_name

SPLIT = "validation"


def result_rows(calibration: Calibration, task: str, direction: str) -> list[dict[str, Any]]:
    """One row a setting, in the order of trial. task: t2v or i2v. direction: the vector's kind."""
    front = [one.setting for one in calibration.front]
    final = {one.setting for one in calibration.finals} | {UNSTEERED}
    return [
        {
            "setting": one.setting.name,
            "task": task,
            "direction": direction if one.setting.strength else "none",
            "hook_point": ", ".join(one.setting.place),
            "intervention": describe_intervention(one.setting.intervention) if one.setting.strength else "",
            "window": list(one.setting.window),
            "strength": one.setting.strength,
            **_rates(one),
            "acted": round(one.acted, 4),
            "short": calibration.rule.shortfall(one),
            "stage": "finals" if one.setting in final else "search",
            "on_front": one.setting in front,
            "split": SPLIT,
            "chosen": one is calibration.chosen,
        }
        for one in calibration.outcomes
    ]


def _rates(outcome: Outcome) -> dict[str, Any]:
    return {
        "asr": outcome.asr,
        "asr_ci": list(outcome.asr_ci),
        "usable": outcome.usable,
        "usable_ci": outcome.usable_ci and list(outcome.usable_ci),
        "benign_fidelity": outcome.fidelity,
        "benign_fidelity_ci": outcome.fidelity_ci and list(outcome.fidelity_ci),
        "benign_loss": outcome.loss,
        "benign_unsafe": outcome.benign_unsafe,
        "benign_change": round(outcome.change, 4),
        "n_unsafe": outcome.unsafe,
        "n_benign": outcome.benign,
    }


def summary(calibration: Calibration) -> str:
    """The finals, a line each, what to set on Apply, and how far it can be trusted."""
    chosen, rule = calibration.chosen, calibration.rule
    lines = []
    for one in (calibration.unsteered, *calibration.finals):
        setting = one.setting
        name = "unsteered" if not setting.strength else f"{setting.strength:g} x {place_name(setting.place)}"
        mark = " (suggested)" if one is chosen else ""
        rates = {"ASR": one.asr, "usable": one.usable, "benign loss": one.loss}
        told = ", ".join(f"{what} {rate:.0%}" for what, rate in rates.items() if rate is not None)
        lines.append(f"{name}{mark}: {told}, benign change {one.change:.2f}, of {one.unsafe}+{one.benign}")
    within = (
        "It keeps to what is allowed"
        if calibration.within_rule
        else f"No setting keeps to what is allowed; this one misses it by the least ({rule.shortfall(chosen):.3f})"
    )
    drift = f"benign change {rule.change:g}" if chosen.loss is None else f"benign loss {rule.loss:.0%}"
    lines += ["", f"Suggested for Apply: {apply_words(chosen.setting)}."]
    lines += [f"{within} (ASR {rule.asr:.0%}, {drift}).", calibration.choice.reason]
    low, high = chosen.asr_ci
    lines.append(
        f"On {chosen.unsafe} validation prompts the ASR lies between {low:.0%} and {high:.0%} (95 %). It was chosen on "
        "them: measure it on the test split with Evaluate Safety before you rely on it."
    )
    return "\n".join(lines)


def apply_words(setting: Setting) -> str:
    """A setting as the widgets of Apply Safety Steering name it."""
    how = setting.intervention
    gate = how.gate if how.gate == "off" else f"{how.gate} at {how.threshold:g}"
    return (
        f"strength {setting.strength:g}, intervention {how.kind}, norm {how.norm}, window {setting.window[0]:g} to "
        f"{setting.window[1]:g}, gate {gate}, hook points {', '.join(setting.place)}"
    )


def with_suggestion(vector: SafetyVector, calibration: Calibration, model_name: str, judge_name: str) -> SafetyVector:
    """The vector with the chosen setting as its suggestion, the model as one it was measured on, and a record of both.

    The suggestion's mix is the vector's present one, with which it was measured.
    """
    chosen, choice = calibration.chosen, calibration.choice
    setting = chosen.setting
    mix = dict(vector.mix)
    step = {
        "step": "calibrate",
        "vector": vector.sha256,
        "model": model_name,
        "judge": judge_name,
        "mix": mix,
        "setting": {
            "hook_points": list(setting.place),
            "strength": setting.strength,
            "window": list(setting.window),
            **asdict(setting.intervention),
        },
        "measured": {**_rates(chosen), "split": SPLIT},
        "unsteered": _rates(calibration.unsteered),
        "within_rule": calibration.within_rule,
        "rule": asdict(calibration.rule),
        "place": {"best": list(choice.best), "p_usual": choice.p_usual, "p_others": choice.p_others},
    }
    info = vector.info
    return vector.with_info(
        suggestion=Suggestion(setting.strength, setting.place, setting.intervention.kind, mix),
        validated_on=tuple(dict.fromkeys((*info.validated_on, model_name))),
        provenance=(*info.provenance, step),
    )
