"""What a row of the model map can say. Plain data; functions are referred to by their names in `layout`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Stream:
    """Where one stream is in a block's output.

    item: its place if the block returns a tuple, None if the block returns one tensor.
    after: the streams that stand before it in the same tensor ("text" in front of "image" in Flux's single blocks).
    width: attribute path on the diffusion model; empty: the family's width.
    in_last: False if the list's last block does not return it.
    """

    name: str
    item: int | None = None
    after: tuple[str, ...] = ()
    width: str = ""
    in_last: bool = True


@dataclass(frozen=True)
class BlockList:
    """A list of blocks on the diffusion model (ModuleList, ModuleDict or Sequential) and the streams they return.

    path: attribute path of the list, if that is not its name.
    replaced_as: the key ("double_block", i) under which core lets other nodes replace block i; empty if it does not.
    dims: letters for the output's dims: B the batch, D the channels, any others count tokens, in their order.
    last_child: core runs the children of each block one by one and never the block: the last child is hooked.
    beside: runs beside the others, so that a depth does not count it.
    block_widths: attributes of the hooked module, the first it has is the width (UNets: the width differs by block).
    """

    name: str
    streams: tuple[Stream, ...] = (Stream("image"),)
    replaced_as: str = "double_block"
    path: str = ""
    dims: str = "BND"
    last_child: bool = False
    beside: bool = False
    block_widths: tuple[str, ...] = ()


@dataclass(frozen=True)
class StateArgument:
    """An argument of the model call that carries conditioning states, or one part of such an argument.

    argument, mask: names of apply_model's arguments; mask is the model's own token mask, if it takes one.
    spaces: width -> space id; another width gets an id made from the family's name and `name`.
    name: tells parts of one hook point apart, where there are several.
    part: name of a function in `layout.PARTS` that says which rows and channels of the argument are meant.
    dims: as of BlockList.
    read_by: the diffusion model's attribute that reads the states; a model that has None there ignores them.
    """

    argument: str
    spaces: Mapping[int, str]
    mask: str = ""
    name: str = ""
    part: str = ""
    dims: str = "BND"
    read_by: str = ""


@dataclass(frozen=True)
class Family:
    """One row of the map.

    class_name: the class of `model.diffusion_model`, matched exactly among ComfyUI's own classes, whose subclasses lay
        their tokens out otherwise; a class that another node derives from it counts as it.
    where: attribute path -> value that the model must have there besides, if one class serves several families.
    lists: in running order; those that a model lacks are left out.
    width, channels: attribute paths of the hidden state's width and the number of input channels. Parts of a path are
        attributes or indices ("blocks.0.norm.weight.shape.0").
    entry: path of a module that runs once whenever the transformer really runs (not when a cache answers in its place).
    layout: name of a function in `layout.LAYOUTS`.
    states: hook point -> the spaces it can be in; the first is meant where nothing else is said.
    names: (width, blocks in the first list, input channels) -> model name; other sizes are named by their numbers.
    tested: False for a model without a row, of which only the generic shape is known.
    """

    name: str
    class_name: str
    lists: tuple[BlockList, ...]
    width: str
    channels: str
    entry: str
    layout: str
    states: Mapping[str, tuple[StateArgument, ...]]
    names: Mapping[tuple[int, int, int], str] = field(default_factory=dict)
    where: Mapping[str, Any] = field(default_factory=dict)
    tested: bool = True


# blocks that return (image, text), and blocks that return one tensor with the text in front of the image
TUPLE = (Stream("image", item=0), Stream("text", item=1))
JOINED = (Stream("image", after=("text",)), Stream("text"))
