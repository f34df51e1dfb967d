"""The model map: where hidden states are in each model family that ComfyUI runs. One declarative row per family.

A row is data. What data cannot say, which tokens of a sequence are generated, is a small named function in `layout`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ..safety_steering.errors import MismatchError
from ..safety_steering.hook_point import HookPoint, parse_hook_point


@dataclass(frozen=True)
class Stream:
    """Where one stream is in a block's output.

    item: its place if the block returns a tuple, None if the block returns one tensor (B, N, D).
    after: the streams that stand before it in the same tensor ("text" in front of "image" in Flux's single blocks).
    """

    name: str
    item: int | None = None
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class BlockList:
    """A ModuleList of transformer blocks on the diffusion model and the streams that its blocks return.

    replaced_as: the key ("double_block", i) under which core lets other nodes replace block i.
    """

    name: str
    streams: tuple[Stream, ...] = (Stream("image"),)
    replaced_as: str = "double_block"


@dataclass(frozen=True)
class StateArgument:
    """An argument of the model call that carries conditioning states (B, N, D).

    argument, mask: names of apply_model's arguments; mask is the model's own token mask, if it takes one.
    spaces: width -> space id; another width gets an id made from the family's name.
    """

    argument: str
    spaces: Mapping[int, str]
    mask: str = ""


@dataclass(frozen=True)
class Family:
    """One row of the map.

    class_name: the class of `model.diffusion_model`, matched exactly: a subclass may lay its tokens out otherwise.
    width, channels: attributes with the width of the hidden state and the number of input channels.
    entry: a module that runs once whenever the transformer really runs (not when a cache answers in its place).
    names: (width, blocks in the first list, input channels) -> model name; other sizes are named by their numbers.
    layout: name of a function in `layout`.
    """

    name: str
    class_name: str
    lists: tuple[BlockList, ...]
    width: str
    channels: str
    entry: str
    layout: str
    states: Mapping[str, StateArgument]
    names: Mapping[tuple[int, int, int], str] = field(default_factory=dict)


_TUPLE = (Stream("image", item=0), Stream("text", item=1))
_JOINED = (Stream("image", after=("text",)), Stream("text"))

FAMILIES = (
    Family(
        name="wan",
        class_name="WanModel",
        lists=(BlockList("blocks"),),
        width="dim",
        channels="in_dim",
        entry="patch_embedding",
        layout="wan",
        states={"conditioning": StateArgument("c_crossattn", {4096: "umt5xxl.last"})},
        names={
            (1536, 30, 16): "wan2.1-1.3b",
            (5120, 40, 16): "wan2-14b",  # Wan 2.1 and both experts of 2.2: one shape, told apart by fingerprint
            (5120, 40, 36): "wan2-i2v-14b",
            (3072, 30, 48): "wan2.2-ti2v-5b",
        },
    ),
    Family(
        name="ltxv",
        class_name="LTXVModel",
        lists=(BlockList("transformer_blocks"),),
        width="inner_dim",
        channels="in_channels",
        entry="patchify_proj",
        layout="ltxv",
        states={"conditioning": StateArgument("c_crossattn", {4096: "t5xxl.last"}, mask="attention_mask")},
        names={(2048, 28, 128): "ltxv-2b", (4096, 48, 128): "ltxv-13b"},
    ),
    Family(
        name="flux",
        class_name="Flux",
        lists=(BlockList("double_blocks", _TUPLE), BlockList("single_blocks", _JOINED, "single_block")),
        width="hidden_size",
        channels="in_channels",
        entry="img_in",
        layout="flux",
        states={"conditioning": StateArgument("c_crossattn", {4096: "t5xxl.last"})},
        names={(3072, 19, 64): "flux.1"},
    ),
)


def unwrap(module: torch.nn.Module) -> torch.nn.Module:
    """The module behind a torch.compile wrapper, or the module itself."""
    inner = getattr(module, "_orig_mod", module)
    return inner if isinstance(inner, torch.nn.Module) else module


def find_family(diffusion_model: torch.nn.Module) -> Family:
    """The row of the map for a loaded model.

    Raises:
        MismatchError: no row fits.
    """
    class_name = type(unwrap(diffusion_model)).__name__
    for family in FAMILIES:
        if family.class_name == class_name:
            return family
    known = ", ".join(family.name for family in FAMILIES)
    raise MismatchError(f"Safety Steering does not support models of class {class_name} yet. Supported: {known}.")


@dataclass(frozen=True)
class Shape:
    """A loaded model's family, name and sizes. block_counts is in running order."""

    family: Family
    name: str
    width: int
    block_counts: Mapping[str, int]


def read_shape(diffusion_model: torch.nn.Module) -> Shape:
    """Read family, name and sizes off a loaded model; MismatchError if it is not supported."""
    model: Any = unwrap(diffusion_model)
    family = find_family(model)
    width = int(getattr(model, family.width))
    counts = {blocks.name: len(getattr(model, blocks.name)) for blocks in family.lists}
    first = next(iter(counts.values()))
    channels = int(getattr(model, family.channels))
    name = family.names.get((width, first, channels), f"{family.name}-{first}x{width}-{channels}ch")
    return Shape(family, name, width, counts)


def state_space(family: Family, hook_point: str, width: int) -> str:
    """The space of the conditioning states at `hook_point`, by their width; MismatchError if the family has none."""
    if hook_point not in family.states:
        raise MismatchError(f"Models of the family {family.name} take no states at the hook point '{hook_point}'.")
    return family.states[hook_point].spaces.get(width, f"{family.name}.{hook_point}{width}")


def block_space(shape: Shape, hook_point: HookPoint) -> str:
    """The space of a block's output stream in one model.

    Raises:
        MismatchError: the model has no such block list, block or stream.
    """
    for blocks in shape.family.lists:
        if blocks.name == hook_point.list:
            break
    else:
        raise MismatchError(
            f"{shape.name} has no block list '{hook_point.list}'; it has {', '.join(shape.block_counts)}."
        )
    count = shape.block_counts[hook_point.list]
    if hook_point.index >= count:
        raise MismatchError(f"{shape.name} has {count} {hook_point.list}, so there is no {hook_point}.")
    if hook_point.stream not in {stream.name for stream in blocks.streams}:
        raise MismatchError(f"{hook_point.list} of {shape.name} return no stream '{hook_point.stream}'.")
    return f"{shape.name}/{hook_point}"


def find_list(family: Family, hook_point: HookPoint) -> tuple[BlockList, Stream]:
    """The row's entries for a hook point that `block_space` has accepted."""
    blocks = next(blocks for blocks in family.lists if blocks.name == hook_point.list)
    return blocks, next(stream for stream in blocks.streams if stream.name == hook_point.stream)


def find_block(diffusion_model: torch.nn.Module, hook_point: HookPoint) -> torch.nn.Module:
    """The block module of a hook point that `block_space` has accepted."""
    block = getattr(unwrap(diffusion_model), hook_point.list)[hook_point.index]
    assert isinstance(block, torch.nn.Module)
    return block


def model_hook_points(shape: Shape) -> tuple[str, ...]:
    """Every block hook point of a model, in running order."""
    return tuple(
        f"block.{blocks.name}.{index}.{stream.name}"
        for blocks in shape.family.lists
        for index in range(shape.block_counts[blocks.name])
        for stream in blocks.streams
    )


def is_block(hook_point: str) -> bool:
    """Whether a hook point is a block's output (not an argument of the model call)."""
    return parse_hook_point(hook_point).kind == "block"
