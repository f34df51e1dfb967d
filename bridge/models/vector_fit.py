"""Whether a vector fits a model, checked before sampling where possible and again in the run; and notices.

A notice is about something that works and that a user should know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...safety_steering.alignment.transfer import fit_step
from ...safety_steering.errors import MismatchError
from ...safety_steering.hook_point import CROSS_ATTENTION, HookPoint
from ...safety_steering.vectors.vector import SafetyVector
from .checkpoint import Checkpoint
from .families.schema import Family
from .fingerprints import fingerprint
from .model_map import Shape, block_space, patcher_shape, state_spaces
from .swaps import stale_warning, swap_warning

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher


def check_fits(vector: SafetyVector, hook_points: Sequence[HookPoint], shape: Shape | HeaderShape) -> None:
    """Raise MismatchError unless `vector` was made for the spaces that this model has at `hook_points`.

    One rule for a loaded model and for a file's header, which leaves some facts open.
    """
    if vector.info.kind == "source":
        raise MismatchError(
            "This is a source vector: its directions live in a language model, not in this one. "
            "Carry it over first with Fit Benign Alignment and Transfer Direction from LLM."
        )
    for point in hook_points:
        directions = vector.at(point)
        if point.in_encoder:
            raise MismatchError(
                f"This vector steers inside the text encoder ({directions.space}), before the model is called. Connect "
                "clip to Apply Safety Steering or Safe Model; nothing else steers there."
            )
        if point.kind == "source":
            raise MismatchError(
                f"This vector lives in a language model ({directions.space}). If that is your model's text encoder, "
                "carry it over again with Transfer Direction from LLM."
            )
        if point.in_blocks:
            _check_blocks(vector, point, shape)
        _check_space(vector, point, directions.space, directions.width, shape)
    if vector.detectors is not None:
        _check_space(vector, vector.detectors.hook_point, vector.detectors.space, vector.detectors.width, shape)


def _check_space(
    vector: SafetyVector, point: HookPoint, space: str, own_width: int, shape: Shape | HeaderShape
) -> None:
    spaces, width = _spaces_at(point, own_width, shape)
    if (spaces and space not in spaces) or own_width != width:
        raise MismatchError(
            f"This vector is for {_made_for(vector)}: at {point} it lives in the space {space} ({own_width} wide). "
            f"This model ({shape.name}) has {' and '.join(spaces) or 'states'} ({width} wide) there. Load a vector "
            "made for this model."
        )


def _check_blocks(vector: SafetyVector, point: HookPoint, shape: Shape | HeaderShape) -> None:
    info = vector.info
    same_blocks = dict(info.block_counts) == dict(shape.block_counts)
    if isinstance(shape, Shape) and shape.swapped and not (shape.layout_known and same_blocks):
        raise MismatchError(
            f"Another node has put {shape.swapped} in place of this model's own, so it is not known where the tokens "
            f"of {point} are. Take that node out, or steer at 'conditioning'."
        )
    if not same_blocks or not shape.is_of(info.family):
        raise MismatchError(
            f"This vector is for {_made_for(vector)} (family {info.family or 'not given'}, "
            f"{_counts(info.block_counts)}). This model is {shape.name} (family {shape.family.name}, "
            f"{_counts(shape.block_counts)}), so {point} is another block. Load a vector made for this model."
        )


def _spaces_at(point: HookPoint, width: int, shape: Shape | HeaderShape) -> tuple[tuple[str, ...], int]:
    """The spaces that the model can have at a hook point for states of this width, and their width.

    Where a header does not show them: no space, and the width asked for.
    """
    if isinstance(shape, Shape):
        if point.in_blocks:
            return (block_space(shape, point),), shape.widths[point]
        return state_spaces(shape.family, point, width), width
    if point.in_blocks:
        return tuple(f"{name}/{point}" for name in shape.names), shape.widths.get(point, 0) or width
    whole = all(not state.part for state in shape.family.states.get(point, ()))
    known = shape.states if point.kind == "conditioning" and whole else 0
    return state_spaces(shape.family, point, known or width), known or width


@dataclass(frozen=True)
class HeaderShape:
    """The facts about a model that its checkpoint's header shows.

    family: the row that was recognised; families whose names begin alike have the same header. names: of the models
    that it can be; none if its sizes are not those of a model in the map. block_counts, widths: as of Shape; a
    width is 0 or missing where the header does not show it. states: channels of the conditioning states, 0 if unknown.
    """

    family: Family
    names: tuple[str, ...]
    block_counts: Mapping[str, int]
    widths: Mapping[HookPoint, int]
    states: int

    @property
    def name(self) -> str:
        """The models that it can be, for people."""
        return " or ".join(self.names) or self.family.name

    def is_of(self, family: str) -> bool:
        """Whether the model can be of this family."""
        return bool(family) and (family.startswith(self.family.name) or self.family.name.startswith(family))


def header_shape(found: Checkpoint, family: Family) -> HeaderShape:
    """What is known of a recognised checkpoint of this family."""
    counts, first = found.block_counts, next(iter(found.block_counts.values()), 0)
    widths = {
        HookPoint(f"block.{entry.name}.{index}.{stream.name}"): found.widths.get(stream.name, found.width)
        for entry in family.lists
        if not entry.block_widths
        for index in range(counts.get(entry.name, 0))
        for stream in entry.streams
    } | {
        HookPoint(f"{CROSS_ATTENTION}.{entry.name}.{index}.{read.stream.name}"): found.widths.get(
            read.stream.name, found.width
        )
        for entry in family.lists
        if not entry.block_widths
        for index in range(counts.get(entry.name, 0))
        for read in entry.reads
    }
    return HeaderShape(
        family,
        tuple(name for (width, blocks, _), name in family.names.items() if (width, blocks) == (found.width, first)),
        {entry.name: counts[entry.name] for entry in family.lists if entry.name in counts and not entry.beside},
        widths,
        found.states,
    )


def _made_for(vector: SafetyVector) -> str:
    return vector.info.model_name or vector.info.family or "another model"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "number of blocks not given"


def notices(
    vector: SafetyVector, hook_points: tuple[HookPoint, ...], strength: float, patcher: ModelPatcher
) -> tuple[str, ...]:
    """What a user should know before relying on this vector at this strength on this model, a sentence each."""
    shape = patcher_shape(patcher)
    found = (
        stale_warning(patcher),
        swap_warning(shape.swapped, shape.family.name),
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
        "token, text and reference tokens included."
    )


def fingerprint_warning(vector: SafetyVector, hook_points: tuple[HookPoint, ...], patcher: ModelPatcher) -> str:
    """A sentence if block directions were fitted on other weights than this model's, else an empty string."""
    fitted = vector.info.weight_fingerprint
    in_blocks = any(name.in_blocks for name in hook_points)
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
    """A sentence if a vector was transferred by an alignment that is too poor to trust, else an empty string."""
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
        "prompts may change more than its card says."
    )
