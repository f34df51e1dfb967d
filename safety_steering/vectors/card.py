"""A vector's card: what a person should know before using it, as text."""

from __future__ import annotations

from collections.abc import Sequence

from .mix import format_mix
from .suggestion import describe_choice, recommended
from .vector import SafetyVector, Suggestion


def describe(vector: SafetyVector) -> str:
    """The card of a vector: a sentence on what it fits, then one fact a line; facts that are not known are left out."""
    info = vector.info
    choice = recommended(vector)
    portable = info.kind == "source"
    facts = {
        "categories": ", ".join(vector.categories),
        "mix": format_mix(vector.mix),
        "recommended": "Transfer chooses the settings for your model" if portable else describe_choice(choice),
        "settings": "" if portable else _settings(choice),
        "measured on": ", ".join(info.validated_on) or "no model: try it carefully",
        "hook points": _listing(tuple(vector.hook_points)),
        "space": _listing(sorted({point.space for point in vector.hook_points.values()})),
        "gap": info.gap_kind,
        "method": info.method,
        "validation AUC": ", ".join(f"{name} {auc:.2f}" for name, auc in info.validation_auc.items()),
        "detectors": _detectors(vector),
        "licence": info.licence,
        "sha256": vector.sha256,
    }
    return "\n".join([headline(vector), *(f"{name}: {value}" for name, value in facts.items() if value)])


def headline(vector: SafetyVector) -> str:
    """What kind of vector it is and what it fits, in a sentence without a full stop."""
    info = vector.info
    name = info.model_name or info.family or next(iter(vector.hook_points.values())).space
    if info.kind == "source":
        return f"portable: found in {name}, works for any model after a one-minute fit"
    if info.kind == "native":
        return f"native: made from {name} itself, for it alone"
    return f"carried: a portable vector, fitted to {name} on harmless captions"


def _detectors(vector: SafetyVector) -> str:
    """What decides for the gate `prompt`; of a native vector without detectors, what it lacks."""
    if vector.detectors is not None:
        return f"thresholds of {vector.detectors.benign} harmless prompts"
    return "none: the gate prompt needs conditioning captured" if vector.info.kind == "native" else ""


def _settings(choice: Suggestion) -> str:
    where = f"{choice.false_alarm:.3g} false alarms" if choice.gate == "prompt" and choice.false_alarm else ""
    gate = choice.gate if choice.gate == "off" else f"{choice.gate} at {where or f'{choice.threshold:g} std'}"
    if choice.token_threshold is not None:
        gate += f" and tokens below {choice.token_threshold:g} std"
    start, end = choice.window
    return f"norm {choice.norm}, gate {gate}, window {start:g} to {end:g}, branch {choice.branch}"


def _listing(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
