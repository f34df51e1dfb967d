"""Does a vector fit a checkpoint? Told from the file's header, before anything is loaded.

What the header does not say is not held against the vector: `fit_check` looks at the loaded model itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..safety_steering.hook_point import HookPoint, parse_hook_point
from ..safety_steering.vectors.vector import SafetyVector
from .models.checkpoint import Checkpoint
from .models.families.schema import Family
from .models.model_map import state_spaces


def model_names(found: Checkpoint, family: Family) -> tuple[str, ...]:
    """The models that a recognised checkpoint can be; none if its sizes are not those of a model in the map."""
    first = next(iter(found.block_counts.values()), 0)
    return tuple(name for (width, blocks, _), name in family.names.items() if (width, blocks) == (found.width, first))


def counted_blocks(found: Checkpoint, family: Family) -> dict[str, int]:
    """Block list -> length, of the lists that a depth counts."""
    beside = {blocks.name for blocks in family.lists if blocks.beside}
    return {name: count for name, count in found.block_counts.items() if name not in beside}


def why_not(vector: SafetyVector, hook_points: Sequence[str], found: Checkpoint, family: Family) -> str:
    """Why a vector cannot steer the checkpoint at these hook points, in a sentence; else an empty string."""
    if vector.info.kind == "source":
        return (
            "This vector was made in a language model. Carry it over to this model with Fit Benign Alignment and "
            "Transfer Direction from LLM."
        )
    made_for = vector.info.model_name or vector.info.family or next(iter(vector.hook_points.values())).space
    model = " or ".join(model_names(found, family)) or family.name
    for name in hook_points:
        point = parse_hook_point(name)
        reason = _block(vector, point, found, family) if point.kind == "block" else _state(vector, name, found, family)
        if reason:
            return (
                f"This vector is for {made_for}; the model file is {model}. {reason} Load a vector made for this model."
            )
    return ""


def _block(vector: SafetyVector, point: HookPoint, found: Checkpoint, family: Family) -> str:
    info, directions = vector.info, vector.at(str(point))
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
