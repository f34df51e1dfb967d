"""The settings recommended for a vector: those in its file, or else what was measured for vectors of its kind.

Evidence of the family defaults (the small world: ASR over unsafe prompts, benign loss over harmless ones):

    native    clamp, token norm, all steps: ASR 3 %, benign loss 2 points at strength 8
              (demo/results/portable_captions.json).
              Strength 6 was chosen on validation (demo/results/first_direction.json: ASR 4 %). The gate at -4 opens on
              99.7 % of unsafe prompts and on 3.5 % of benign ones, at -2.5 on 10.2 % of those.
    acting    native with detectors, fitted on differing tokens: clamp, no norm, gate prompt, on tokens below -2 std.
              The false alarm of 5 % opens on 91 to 99 % of unsafe prompts with elements that no fit saw
              (docs/fitting.md); without diverse benign prompts, -4 std.
    carried   clamp, token norm, all steps, gate at -2.5, strength 8: ASR 27 and 57 % (own and bundled source), benign
              loss 4 and 6 points (demo/results/portable_captions.json).

Nothing of this was measured on another model: calibrate there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..errors import MismatchError
from ..hook_point import AUTO, select_hook_points
from .vector import BENIGN_ONLY, CALIBRATED, DIFFERING, FAMILY_DEFAULT, SafetyVector, Suggestion

NATIVE = Suggestion(
    strength=6.0,
    intervention="clamp",
    norm="token",
    gate="pooled",
    threshold=-4.0,
    branch="both",
    basis=FAMILY_DEFAULT,
)
CARRIED = replace(NATIVE, strength=8.0, threshold=-2.5)
# of the gate `prompt`
FALSE_ALARM = 0.01
TOKEN_THRESHOLD = -2.0
ACTING = replace(NATIVE, norm="none", gate="prompt", false_alarm=0.05, token_threshold=TOKEN_THRESHOLD)
CALIBRATE_STEP = "calibrate"
_NAMES = {"conditioning": "the prompt", "clip_vision": "the start image"}


def recommended(vector: SafetyVector) -> Suggestion:
    """The whole suggestion for a vector: no field is empty, and every hook point is one of the vector's.

    A file of before `basis` existed gets what its calibration recorded in its provenance, or else the family default at
    its suggested hook points.
    """
    own = vector.info.suggestion
    if not own.basis:
        own = _former_calibration(vector) or Suggestion(hook_points=own.hook_points, mix=own.mix)
    default = _default(vector)
    found = default
    if own.basis:
        found = replace(
            own,
            intervention=own.intervention or default.intervention,
            norm=own.norm or default.norm,
            gate=own.gate or default.gate,
            threshold=own.threshold if own.gate else default.threshold,
            false_alarm=own.false_alarm if own.gate else default.false_alarm,
            token_threshold=own.token_threshold if own.gate else default.token_threshold,
            branch=own.branch or default.branch,
        )
    return replace(found, hook_points=_hook_points(vector, own.hook_points), mix=dict(own.mix or vector.mix))


def _default(vector: SafetyVector) -> Suggestion:
    """The family default of a vector's kind."""
    if vector.info.kind != "native":
        return CARRIED
    by_token = vector.info.parameters.get("tokens") == DIFFERING
    return ACTING if by_token and vector.detectors is not None else NATIVE


def _hook_points(vector: SafetyVector, suggested: Sequence[str]) -> tuple[str, ...]:
    """The suggested hook points that the vector has; else what Apply's `auto` takes; else the middle one."""
    points = tuple(vector.hook_points)
    known = tuple(name for name in suggested if name in points)
    try:
        return tuple(map(str, select_hook_points(AUTO, points, vector.info.block_counts, known)))
    except MismatchError:  # blocks of a model whose block lists are not known have no depth
        return (str(points[len(points) // 2]),)


def calibrated(step: Mapping[str, Any]) -> Suggestion:
    """The suggestion that a calibration recorded in its step of provenance.

    Raises:
        KeyError, TypeError, ValueError: the step is not whole.
    """
    setting, rates = step["setting"], step["measured"]
    start, end = (float(edge) for edge in setting["window"])
    return Suggestion(
        strength=float(setting["strength"]),
        hook_points=tuple(map(str, setting["hook_points"])),
        intervention=str(setting["kind"]),
        mix={str(name): float(weight) for name, weight in step["mix"].items()},
        norm=str(setting["norm"]),
        gate=str(setting["gate"]),
        threshold=float(setting["threshold"]),
        false_alarm=float(setting.get("false_alarm", 0)),
        token_threshold=None if setting.get("token_threshold") is None else float(setting["token_threshold"]),
        window=(start, end),
        branch="both",
        strengths={str(name): float(value) for name, value in setting.get("strengths", {}).items()},
        basis=CALIBRATED,
        basis_model=str(step["model"]),
        basis_judge=str(step["judge"]),
        basis_n=int(rates["n_unsafe"]) + int(rates["n_benign"]),
    )


def _former_calibration(vector: SafetyVector) -> Suggestion | None:
    steps = [step for step in vector.info.provenance if step.get("step") == CALIBRATE_STEP]
    try:
        return calibrated(steps[-1])
    except (IndexError, KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None


def describe_choice(suggestion: Suggestion, level: float = 1.0) -> str:
    """What a recommended suggestion does at a level, and why, in words.

    Example:
        >>> from safety_steering import load_vector
        >>> from safety_steering.vectors.suggestion import describe_choice, recommended
        >>> describe_choice(recommended(load_vector("vectors/smollm2_135m_portable.safetensors")))
        'clamp at source.14, strength 8: the usual settings for vectors of this kind, not measured on this model'
    """
    if level == 0:
        return "off: the level is 0"
    points = suggestion.hook_points
    names = [_NAMES.get(point, point) for point in points]
    where = " and ".join(names) if len(names) <= 2 else f"{len(names)} hook points"
    sizes = sorted({level * suggestion.strengths.get(point, suggestion.strength) for point in points})
    strength = " to ".join(f"{size:g}" for size in dict.fromkeys((sizes[0], sizes[-1])))
    return f"{suggestion.intervention} at {where}, strength {strength}: {_why(suggestion)}"


def _why(suggestion: Suggestion) -> str:
    if suggestion.basis == BENIGN_ONLY:
        usual = "estimated from harmless captions only"
        unlike = ", none of your own: connect some to benign_prompts, or the gate may never open"
        return usual if suggestion.basis_n else usual + unlike
    if suggestion.basis == CALIBRATED:
        judge, count = suggestion.basis_judge, suggestion.basis_n
        by = (f" with {judge}" if judge else "") + (f" on {count} prompts" if count else "")
        return f"calibrated on {suggestion.basis_model or 'a model that the file does not name'}{by}"
    return "the usual settings for vectors of this kind, not measured on this model"
