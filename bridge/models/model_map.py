"""The model map: where hidden states are in each model family that ComfyUI runs.

The rows are in `families`, one declarative row per family. This module finds a model's row and reads its sizes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

import torch
from torch import nn

from ...safety_steering.errors import MismatchError, shortened
from ...safety_steering.hook_point import CROSS_ATTENTION, HookPoint
from .checkpoint import recognise
from .families import FAMILIES
from .families.schema import BlockList, Family, Output, StateArgument, Stream
from .families.unlisted import REFUSED, generic_family
from .swaps import CLASS, core_class, is_core, own_list, patched, saved, unwrap

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

__all__ = ["FAMILIES", "BlockList", "Family", "Output", "Shape", "StateArgument", "Stream"]


def _find_family(model: torch.nn.Module, kind: type) -> Family:
    """The row of the map for a model of class `kind`; for a class without a row the generic shape, if the model has it.

    Raises:
        MismatchError: the model is refused by name, or nothing fits.
    """
    own = core_class(kind)
    for family in FAMILIES:
        if family.class_name == own.__name__ and _is_where(model, family.where):
            return family
    if own.__name__ in REFUSED:
        raise MismatchError(REFUSED[own.__name__])
    if not is_core(own) and (found := _family_by_weights(model)) is not None:
        return found
    if (generic := generic_family(model, own.__name__)) is not None:
        return generic
    if not is_core(own):
        raise MismatchError(
            f"This model's class is {own.__name__}, which is not one of ComfyUI's: another node has put it in place of "
            "the model's own, or has loaded a model of its own. Take that node out, or choose another model to steer."
        )
    known = ", ".join(dict.fromkeys(family.name for family in FAMILIES))
    raise MismatchError(f"Safety Steering does not support models of class {own.__name__} yet. Supported: {known}.")


def _family_by_weights(model: torch.nn.Module) -> Family | None:
    """The row that a model of a class without a row has the weights of; None if there is none."""
    found = recognise({name: tuple(weight.shape) for name, weight in model.named_parameters()}, FAMILIES)
    rows = [row for row in FAMILIES if found is not None and row.name == found.family and _is_where(model, row.where)]
    return next((row for row in rows if all(_has(model, path) for path in (row.width, row.channels, row.entry))), None)


def _has(model: Any, path: str) -> bool:
    try:
        follow(model, path)
    except (AttributeError, IndexError, KeyError, TypeError):
        return False
    return True


def _is_where(model: Any, where: Mapping[str, Any]) -> bool:
    try:
        return all(follow(model, path) == value for path, value in where.items())
    except AttributeError:
        return False


def follow(root: Any, path: str) -> Any:
    """The value at a path of attributes and indices ("blocks.0.norm.weight.shape.0")."""
    return reduce(lambda at, part: at[int(part)] if part.isdigit() else getattr(at, part), path.split("."), root)


@dataclass(frozen=True)
class Shape:
    """A loaded model's family, name and sizes.

    width: of the main stream. block_counts: of the lists that a depth counts, in running order. widths: of each hook
        point in blocks, block outputs first. swapped: what another node has put in place of the model's own class or
        blocks, in words; empty if nothing. layout_known: False if that class is not derived from the model's own, so
        that its tokens may be laid out in any way.
    """

    family: Family
    name: str
    width: int
    block_counts: Mapping[str, int]
    widths: Mapping[HookPoint, int]
    swapped: str = ""
    layout_known: bool = True

    def is_of(self, family: str) -> bool:
        """Whether the model is of this family."""
        return family == self.family.name


@dataclass(frozen=True)
class _Reading:
    """What a model was found to be: its own class, its shape, and the modules to hook by the list's name.

    Weak references to the modules: a reading must not keep its model in memory.
    """

    kind: type
    shape: Shape
    blocks: Mapping[str, Sequence[ref[torch.nn.Module]]]


WITNESSES = 5  # blocks that show whether the blocks ran in a model call

# A model that was once read without a swap is known from then on: what other nodes put on it later changes nothing.
_READINGS: WeakKeyDictionary[torch.nn.Module, _Reading] = WeakKeyDictionary()


def patcher_shape(patcher: ModelPatcher) -> Shape:
    """The shape of the model as this patcher runs it, whatever an earlier run has left on it.

    Raises:
        MismatchError: the model is not supported.
    """
    former = saved(patcher)
    model = unwrap(patcher.object_patches_backup.get("diffusion_model", patcher.model.diffusion_model))
    own = patched(patcher)
    kind = own.get(CLASS, former.get(CLASS, type(model)))
    return _with_swaps(model, _reading(model, former), kind, {**former, **own})


def read_shape(diffusion_model: torch.nn.Module) -> Shape:
    """Family, name and sizes of a loaded model as it now is; MismatchError if it is not supported."""
    model = unwrap(diffusion_model)
    return _with_swaps(model, _reading(model, {}), type(model), {})


def _reading(model: torch.nn.Module, former: Mapping[str, Any]) -> _Reading:
    """former: what the model has of its own where another node's patches are on it now."""
    known = _READINGS.get(model)
    if known is None or (not is_core(known.kind) and type(model) is not known.kind):
        known = _read(model, former)
        if not known.shape.swapped:
            _READINGS[model] = known
    return known


def _read(model: Any, former: Mapping[str, Any]) -> _Reading:
    kind = former.get(CLASS, type(model))
    family = _find_family(model, kind)
    width = int(follow(model, family.width))
    found = {entry.name: _list_of(model, entry, former) for entry in family.lists}
    own = {name: None if blocks is None else own_list(blocks) for name, blocks in found.items()}
    blocks = {entry.name: _hooked_modules(own[entry.name], entry) for entry in family.lists}
    lost = [f"another list {name}" for name, one in found.items() if one is not None and own[name] is None]
    counts = {entry.name: len(blocks[entry.name]) for entry in family.lists if blocks[entry.name] and not entry.beside}
    widths = {
        HookPoint(f"block.{entry.name}.{index}.{stream.name}"): _width(model, entry, stream, block, width)
        for entry in family.lists
        for index, block in enumerate(blocks[entry.name])
        for stream in entry.streams
        if stream.in_last or index + 1 < len(blocks[entry.name])
    } | {
        HookPoint(f"{CROSS_ATTENTION}.{entry.name}.{index}.{read.stream.name}"): _width(
            model, entry, read.stream, follow(block, read.module), width
        )
        for entry in family.lists
        for index, block in enumerate(blocks[entry.name])
        for read in entry.reads
        if _has(block, read.module)
    }
    first = next(iter(counts.values()), 0)
    channels = int(follow(model, family.channels))
    name = family.names.get((width, first, channels), f"{family.name}-{first}x{width}-{channels}ch")
    weak = {name: [ref(block) for block in modules] for name, modules in blocks.items()}
    return _Reading(core_class(kind), Shape(family, name, width, counts, widths, " and ".join(lost)), weak)


def _with_swaps(model: Any, known: _Reading, kind: type, patches: Mapping[str, Any]) -> Shape:
    """The known shape, and what is in place of the model's own class and lists: as patched, else as it now is."""
    shape = known.shape
    found = [shape.swapped] if shape.swapped else []
    if kind is not known.kind or kind.__name__ != shape.family.class_name:
        found.append(f"the class {kind.__name__}")
    for entry in shape.family.lists:
        if entry.holding:
            continue
        live = _hooked_modules(_list_of(model, entry, patches), entry)
        if not shape.swapped and len(live) != len(known.blocks[entry.name]):
            found.append(f"another list {entry.name}")
    derived = issubclass(kind, known.kind) and known.kind.__name__ == shape.family.class_name
    return replace(shape, swapped=" and ".join(found), layout_known=derived)


def _list_of(model: Any, blocks: BlockList, patches: Mapping[str, Any]) -> Any:
    """The list of blocks on the model, or what `patches` put in its place; None if the model lacks it."""
    path = blocks.path or blocks.name
    if blocks.holding:
        return nn.ModuleList(one for one in model.modules() if blocks.holding in dict(one.named_children()))
    try:
        return patches[path] if path in patches else follow(model, path)
    except AttributeError:
        return None


def _hooked_modules(blocks: Any, entry: BlockList) -> list[torch.nn.Module]:
    """The modules to hook, one a block; none if there is no list."""
    modules = list(blocks.children()) if isinstance(blocks, torch.nn.Module) else []
    return [list(module.children())[-1] for module in modules] if entry.last_child else modules


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
    """The space of a hook point in a block of one model.

    Raises:
        MismatchError: the model has no such block list, block or stream, or the block has no part that reads the text.
    """
    if hook_point not in shape.widths:
        lists = {point.list: point.number + 1 for point in shape.widths if point.kind == hook_point.kind}
        if hook_point.list not in lists:
            if hook_point.kind == CROSS_ATTENTION:
                raise MismatchError(
                    f"{shape.name} has no {shortened(hook_point)}. {_why_unread(shape.family, hook_point.list)}"
                )
            raise MismatchError(f"{shape.name} has no block list '{hook_point.list}'; it has {', '.join(lists)}.")
        count = lists[hook_point.list]
        if hook_point.number >= count:
            raise MismatchError(f"{shape.name} has {count} {hook_point.list}, so there is no {hook_point}.")
        raise MismatchError(
            f"{hook_point.list} {hook_point.number} of {shape.name} returns no stream '{hook_point.stream}'."
        )
    return f"{shape.name}/{hook_point}"


def _why_unread(family: Family, name: str) -> str:
    """Why blocks of a list have no cross-attention hook points, and what to use instead."""
    why = [f"{blocks.unread} " for blocks in family.lists if blocks.name == name]
    reading = [blocks.name for blocks in family.lists if blocks.reads]
    where = f"its {' and '.join(reading)}" if reading else "'conditioning' or at its blocks' outputs"
    return f"{''.join(why)}Steer at {where}."


def find_list(family: Family, hook_point: HookPoint) -> BlockList:
    """The row's list for a hook point that `block_space` has accepted."""
    return next(blocks for blocks in family.lists if blocks.name == hook_point.list)


def find_output(family: Family, hook_point: HookPoint) -> Output:
    """The output for a hook point that `block_space` has accepted: of a block, or of the module that reads the text."""
    blocks = find_list(family, hook_point)
    outputs = blocks.reads
    if hook_point.is_block:
        outputs = tuple(Output("", stream, blocks.dims) for stream in blocks.streams)
    return next(output for output in outputs if output.stream.name == hook_point.stream)


def find_block(diffusion_model: torch.nn.Module, hook_point: HookPoint) -> torch.nn.Module:
    """The module to hook for a hook point that `block_space` has accepted.

    Where another node has replaced the list, that is the model's own block, which the replacement may still run.

    Raises:
        MismatchError: the model's own block no longer exists.
    """
    model = unwrap(diffusion_model)
    known = _reading(model, {})
    entry, output = find_list(known.shape.family, hook_point), find_output(known.shape.family, hook_point)
    own = known.blocks[entry.name]
    live = [] if entry.holding else _hooked_modules(_list_of(model, entry, {}), entry)
    block = live[hook_point.number] if len(live) == len(own) else own[hook_point.number]()
    if block is None or not (output.module == "" or _has(block, output.module)):
        raise MismatchError(f"Another node has replaced {entry.name} and with it {hook_point}. Take that node out.")
    return block.get_submodule(output.module)


def witness_points(shape: Shape) -> tuple[HookPoint, ...]:
    """A few blocks over the whole depth but for the first, which caches run on a hit too: did the blocks run?"""
    outputs = (point for point in shape.widths if point.is_block and point.list in shape.block_counts)
    blocks = list({(point.list, point.number): point for point in outputs}.values())
    last = len(blocks) - 1
    chosen = (max(min(1, last), last * step // (WITNESSES - 1)) for step in range(WITNESSES))
    return tuple(blocks[index] for index in dict.fromkeys(chosen))


def model_hook_points(shape: Shape) -> tuple[HookPoint, ...]:
    """Every hook point in a model's blocks: the block outputs in running order, then what the blocks read."""
    return tuple(shape.widths)
