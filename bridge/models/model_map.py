"""The model map: where hidden states are in each model family that ComfyUI runs.

The rows are in `families`, one declarative row per family; here is what is looked up in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch

from ...safety_steering.errors import MismatchError
from ...safety_steering.hook_point import HookPoint
from .families import FAMILIES
from .families.schema import BlockList, Family, StateArgument, Stream
from .families.unlisted import REFUSED, generic_family

__all__ = ["FAMILIES", "BlockList", "Family", "Shape", "StateArgument", "Stream"]


def unwrap(module: torch.nn.Module) -> torch.nn.Module:
    """The module behind a torch.compile wrapper, or the module itself."""
    inner = getattr(module, "_orig_mod", module)
    return inner if isinstance(inner, torch.nn.Module) else module


def find_family(diffusion_model: torch.nn.Module) -> Family:
    """The row of the map for a loaded model; for a class without a row the generic shape, if the model has it.

    Raises:
        MismatchError: the model is refused by name, or nothing fits.
    """
    model = unwrap(diffusion_model)
    class_name = type(model).__name__
    for family in FAMILIES:
        if family.class_name == class_name and _is_where(model, family.where):
            return family
    if class_name in REFUSED:
        raise MismatchError(REFUSED[class_name])
    if (generic := generic_family(model)) is not None:
        return generic
    known = ", ".join(dict.fromkeys(family.name for family in FAMILIES))
    raise MismatchError(f"Safety Steering does not support models of class {class_name} yet. Supported: {known}.")


def _is_where(model: Any, where: Mapping[str, Any]) -> bool:
    try:
        return all(follow(model, path) == value for path, value in where.items())
    except AttributeError:
        return False


def follow(root: Any, path: str) -> Any:
    """What a path of attributes and indices ("blocks.0.norm.weight.shape.0") leads to."""
    return reduce(lambda at, part: at[int(part)] if part.isdigit() else getattr(at, part), path.split("."), root)


@dataclass(frozen=True)
class Shape:
    """A loaded model's family, name and sizes.

    width: of the main stream. block_counts: of the lists that a depth counts, in running order. widths: of each block
        hook point.
    """

    family: Family
    name: str
    width: int
    block_counts: Mapping[str, int]
    widths: Mapping[HookPoint, int]


def read_shape(diffusion_model: torch.nn.Module) -> Shape:
    """Read family, name and sizes off a loaded model; MismatchError if it is not supported."""
    model: Any = unwrap(diffusion_model)
    family = find_family(model)
    width = int(follow(model, family.width))
    blocks = {entry.name: _children(model, entry) for entry in family.lists}
    counts = {entry.name: len(blocks[entry.name]) for entry in family.lists if blocks[entry.name] and not entry.beside}
    widths = {
        HookPoint(f"block.{entry.name}.{index}.{stream.name}"): _width(model, entry, stream, block, width)
        for entry in family.lists
        for index, block in enumerate(blocks[entry.name])
        for stream in entry.streams
        if stream.in_last or index + 1 < len(blocks[entry.name])
    }
    first = next(iter(counts.values()))
    channels = int(follow(model, family.channels))
    name = family.names.get((width, first, channels), f"{family.name}-{first}x{width}-{channels}ch")
    return Shape(family, name, width, counts, widths)


def _children(model: Any, blocks: BlockList) -> list[torch.nn.Module]:
    """The modules to hook, one a block; none if the model lacks the list."""
    try:
        modules = list(follow(model, blocks.path or blocks.name).children())
    except AttributeError:
        return []
    return [list(module.children())[-1] for module in modules] if blocks.last_child else modules


def _width(model: Any, blocks: BlockList, stream: Stream, block: torch.nn.Module, width: int) -> int:
    for attribute in blocks.block_widths:
        if hasattr(block, attribute):
            return int(getattr(block, attribute))
    return int(follow(model, stream.width)) if stream.width else width


def state_space(family: Family, hook_point: str, width: int) -> str:
    """The space of the conditioning states at `hook_point`, by their width; MismatchError if the family has none.

    Where several spaces share a hook point it is the first.
    """
    return state_spaces(family, hook_point, width)[0]


def state_spaces(family: Family, hook_point: str, width: int) -> tuple[str, ...]:
    """Every space that states of this width at `hook_point` can be in; MismatchError if the family has none."""
    if hook_point not in family.states:
        raise MismatchError(f"Models of the family {family.name} take no states at the hook point '{hook_point}'.")
    return tuple(_space(family, hook_point, state, width) for state in family.states[hook_point])


def find_state(family: Family, hook_point: str, space: str, width: int) -> StateArgument:
    """The entry of a row for a hook point and space; the first if the space is not among them."""
    states = family.states[hook_point]
    return next((state for state in states if _space(family, hook_point, state, width) == space), states[0])


def _space(family: Family, hook_point: str, state: StateArgument, width: int) -> str:
    return state.spaces.get(width, f"{family.name}.{state.name or hook_point}{width}")


def block_space(shape: Shape, hook_point: HookPoint) -> str:
    """The space of a block's output stream in one model.

    Raises:
        MismatchError: the model has no such block list, block or stream.
    """
    if hook_point not in shape.widths:
        lists = {point.list: point.number + 1 for point in shape.widths}
        if hook_point.list not in lists:
            raise MismatchError(f"{shape.name} has no block list '{hook_point.list}'; it has {', '.join(lists)}.")
        count = lists[hook_point.list]
        if hook_point.number >= count:
            raise MismatchError(f"{shape.name} has {count} {hook_point.list}, so there is no {hook_point}.")
        raise MismatchError(
            f"{hook_point.list} {hook_point.number} of {shape.name} returns no stream '{hook_point.stream}'."
        )
    return f"{shape.name}/{hook_point}"


def find_list(family: Family, hook_point: HookPoint) -> tuple[BlockList, Stream]:
    """The row's entries for a hook point that `block_space` has accepted."""
    blocks = next(blocks for blocks in family.lists if blocks.name == hook_point.list)
    return blocks, next(stream for stream in blocks.streams if stream.name == hook_point.stream)


def find_block(diffusion_model: torch.nn.Module, hook_point: HookPoint) -> torch.nn.Module:
    """The module to hook for a hook point that `block_space` has accepted."""
    model = unwrap(diffusion_model)
    blocks, _ = find_list(find_family(model), hook_point)
    return _children(model, blocks)[hook_point.number]


def model_hook_points(shape: Shape) -> tuple[HookPoint, ...]:
    """Every block hook point of a model, in running order."""
    return tuple(shape.widths)
