"""Does a vector belong to a model? Told before sampling where that is possible, and again at run time.

Beside what is refused there are notices: things that work and that a user should know.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from ...safety_steering.alignment.transfer import fit_step
from ...safety_steering.errors import MismatchError
from ...safety_steering.hook_point import parse_hook_point
from ...safety_steering.vectors.vector import SafetyVector
from .model_map import Shape, block_space, read_shape, state_spaces

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

_SAMPLED_WEIGHTS = 16
_SAMPLED_VALUES = 64


def check_fits(vector: SafetyVector, hook_points: tuple[str, ...], shape: Shape) -> None:
    """Raise MismatchError unless `vector` was made for the spaces that this model has at `hook_points`."""
    info = vector.info
    if info.kind == "source":
        raise MismatchError(
            "This is a source vector: its directions live in a language model, not in this one. "
            "Carry it over first with Fit Benign Alignment and Transfer Direction from LLM."
        )
    for name in hook_points:
        directions = vector.at(name)
        point = parse_hook_point(name)
        if point.kind == "source":
            raise MismatchError(
                f"This vector lives inside a text encoder ({directions.space}), where Apply Safety Steering does not "
                "act. Fit the alignment with the target conditioning or blocks."
            )
        if point.kind == "block":
            _check_blocks(vector, name, shape)
            spaces, width = (block_space(shape, point),), shape.widths[name]
        else:
            spaces, width = state_spaces(shape.family, name, directions.width), directions.width
        if directions.space not in spaces or directions.width != width:
            raise MismatchError(
                f"This vector is for {_made_for(vector)}: at {name} it lives in the space {directions.space} "
                f"({directions.width} wide). This model ({shape.name}) has {' and '.join(spaces)} ({width} wide) "
                "there. Load a vector made for this model."
            )


def _check_blocks(vector: SafetyVector, name: str, shape: Shape) -> None:
    info = vector.info
    if info.family != shape.family.name or dict(info.block_counts) != dict(shape.block_counts):
        raise MismatchError(
            f"This vector is for {_made_for(vector)} (family {info.family or 'not given'}, "
            f"{_counts(info.block_counts)}). This model is {shape.name} (family {shape.family.name}, "
            f"{_counts(shape.block_counts)}), so {name} is another place. Load a vector made for this model."
        )


def _made_for(vector: SafetyVector) -> str:
    return vector.info.model_name or vector.info.family or "another model"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "number of blocks not given"


def fingerprint(patcher: ModelPatcher) -> str:
    """A short hash of a diffusion model's weights before any LoRA; see `weights_fingerprint`."""
    return weights_fingerprint(patcher.model.diffusion_model, patcher.backup, "diffusion_model.")


def weights_fingerprint(model: torch.nn.Module, backup: Mapping[str, Any], prefix: str = "") -> str:
    """A short hash of a model's weights before any LoRA: shapes, and a few values of tensors spread over the model.

    Another precision, quantisation or merge gives another fingerprint. backup: a patcher's, of weights that it has
    patched in place, under `prefix` and their names.
    """
    weights = list(model.named_parameters())
    digest = hashlib.sha256(repr([(name, tuple(weight.shape)) for name, weight in weights]).encode())
    stride = max(1, len(weights) // _SAMPLED_WEIGHTS)
    for name, weight in weights[::stride]:
        saved = backup.get(f"{prefix}{name}")
        original = weight if saved is None else saved.weight
        values = original.detach().flatten()[:_SAMPLED_VALUES].to("cpu", torch.float32)
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()[:16]


def notices(
    vector: SafetyVector, hook_points: tuple[str, ...], strength: float, patcher: ModelPatcher
) -> tuple[str, ...]:
    """What a user should know before relying on this vector at this strength on this model, a sentence each."""
    shape = read_shape(patcher.model.diffusion_model)
    found = (
        untested_warning(shape),
        fingerprint_warning(vector, hook_points, patcher),
        never_measured_warning(vector, shape),
        poor_fit_warning(vector),
        strength_warning(vector, strength),
    )
    return tuple(sentence for sentence in found if sentence)


def untested_warning(shape: Shape) -> str:
    """A sentence if only the generic shape of a model is known, else an empty string."""
    if shape.family.tested:
        return ""
    return (
        f"Untested model: {shape.family.class_name} has no row in the model map. Its blocks are steered at every "
        "token; text or reference tokens among them are not told apart."
    )


def fingerprint_warning(vector: SafetyVector, hook_points: tuple[str, ...], patcher: ModelPatcher) -> str:
    """A sentence if block directions were fitted on other weights than this model's, else an empty string."""
    fitted = vector.info.weight_fingerprint
    in_blocks = any(parse_hook_point(name).kind == "block" for name in hook_points)
    if not fitted or not in_blocks or fitted == fingerprint(patcher):
        return ""
    return (
        f"The vector was fitted on other weights of {_made_for(vector)} than those loaded (another precision, "
        "quantisation, merge or fine-tune). It still applies; judge its effect before you rely on it."
    )


def never_measured_warning(vector: SafetyVector, shape: Shape) -> str:
    """A sentence if the vector's effect was never measured on this model, else an empty string."""
    measured = vector.info.validated_on
    if shape.name in measured:
        return ""
    where = f"only on {', '.join(measured)}" if measured else "on no model at all"
    return (
        f"Never measured on {shape.name}: this vector's effect was measured {where}. Judge results yourself, or run "
        "Evaluate Safety."
    )


def poor_fit_warning(vector: SafetyVector) -> str:
    """A sentence if a transferred vector came by an alignment that is too poor to trust, else an empty string."""
    complaint = (fit_step(vector) or {}).get("complaint")
    if not complaint:
        return ""
    return f"The alignment that carried this vector over is too poor to trust: {complaint}. Fit it with more anchors."


def strength_warning(vector: SafetyVector, strength: float) -> str:
    """A sentence if the strength is beyond the one that measurement chose, else an empty string."""
    info = vector.info
    if not info.validated_on or abs(strength) <= abs(info.suggestion.strength):
        return ""
    return (
        f"Strength {strength:g} is beyond what was measured to suit ({info.suggestion.strength:g}): benign "
        "prompts may suffer more than its card says."
    )
