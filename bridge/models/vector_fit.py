"""Does a vector belong to a model? Told before sampling where that is possible, and again at run time.

Beside what is refused there are notices: things that work and that a user should know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ...safety_steering.alignment.transfer import fit_step
from ...safety_steering.errors import MismatchError
from ...safety_steering.hook_point import HookPoint
from ...safety_steering.vectors.vector import SafetyVector
from .checkpoint import Checkpoint
from .families.schema import Family
from .fingerprints import fingerprint
from .model_map import Shape, block_space, read_shape, state_spaces

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher


def check_fits(vector: SafetyVector, hook_points: tuple[HookPoint, ...], shape: Shape) -> None:
    """Raise MismatchError unless `vector` was made for the spaces that this model has at `hook_points`."""
    info = vector.info
    if info.kind == "source":
        raise MismatchError(
            "This is a source vector: its directions live in a language model, not in this one. "
            "Carry it over first with Fit Benign Alignment and Transfer Direction from LLM."
        )
    for name in hook_points:
        directions = vector.at(name)
        if name.kind == "source":
            raise MismatchError(
                f"This vector lives inside a text encoder ({directions.space}), where Apply Safety Steering does not "
                "act. Fit the alignment with the target conditioning or blocks."
            )
        if name.is_block:
            _check_blocks(vector, name, shape)
            spaces, width = (block_space(shape, name),), shape.widths[name]
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


def notices(
    vector: SafetyVector, hook_points: tuple[HookPoint, ...], strength: float, patcher: ModelPatcher
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


def fingerprint_warning(vector: SafetyVector, hook_points: tuple[HookPoint, ...], patcher: ModelPatcher) -> str:
    """A sentence if block directions were fitted on other weights than this model's, else an empty string."""
    fitted = vector.info.weight_fingerprint
    in_blocks = any(name.is_block for name in hook_points)
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


# --- Does a vector fit a checkpoint? Told from the file's header, before anything is loaded.
#
# What the header does not say is not held against the vector: `fit_check` looks at the loaded model itself.


def model_names(found: Checkpoint, family: Family) -> tuple[str, ...]:
    """The models that a recognised checkpoint can be; none if its sizes are not those of a model in the map."""
    first = next(iter(found.block_counts.values()), 0)
    return tuple(name for (width, blocks, _), name in family.names.items() if (width, blocks) == (found.width, first))


def counted_blocks(found: Checkpoint, family: Family) -> dict[str, int]:
    """Block list -> length, of the lists that a depth counts."""
    beside = {blocks.name for blocks in family.lists if blocks.beside}
    return {name: count for name, count in found.block_counts.items() if name not in beside}


def why_not(vector: SafetyVector, hook_points: Sequence[HookPoint], found: Checkpoint, family: Family) -> str:
    """Why a vector cannot steer the checkpoint at these hook points, in a sentence; else an empty string."""
    if vector.info.kind == "source":
        return (
            "This vector was made in a language model. Carry it over to this model with Fit Benign Alignment and "
            "Transfer Direction from LLM."
        )
    made_for = vector.info.model_name or vector.info.family or next(iter(vector.hook_points.values())).space
    model = " or ".join(model_names(found, family)) or family.name
    for name in hook_points:
        reason = _block(vector, name, found, family) if name.is_block else _state(vector, name, found, family)
        if reason:
            return (
                f"This vector is for {made_for}; the model file is {model}. {reason} Load a vector made for this model."
            )
    return ""


def _block(vector: SafetyVector, point: HookPoint, found: Checkpoint, family: Family) -> str:
    info, directions = vector.info, vector.at(point)
    if not info.family.startswith(family.name) and not family.name.startswith(info.family):
        return f"Their families differ ({info.family or 'not given'} and {family.name})."
    counts = counted_blocks(found, family)
    if dict(info.block_counts) != counts:
        return f"They have other numbers of blocks ({_listing(info.block_counts)}; {_listing(counts)})."
    blocks = next(blocks for blocks in family.lists if blocks.name == point.list)
    width = found.widths.get(point.stream, found.width)
    if width and not blocks.block_widths and directions.width != width:
        return f"Their hidden states differ in width ({directions.width} and {width})."
    names = model_names(found, family)
    if names and directions.space not in {f"{name}/{point}" for name in names}:
        return f"The vector's space is {directions.space}."
    return ""


def _state(vector: SafetyVector, name: str, found: Checkpoint, family: Family) -> str:
    if name not in family.states:
        return f"Models of the family {family.name} take no {name} states."
    if name != "conditioning" or not found.states:
        return ""
    spaces, own = state_spaces(family, name, found.states), vector.at(name).space
    return "" if own in spaces else f"Its prompts are read as {' or '.join(spaces)}, the vector's as {own}."


def _listing(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "not given"
