"""The fields of the model map's rows. Plain data; functions are given by their names in `LAYOUTS` and `PARTS`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Stream:
    """One stream of a block's output.

    item: its index if the block returns a tuple, None if the block returns one tensor.
    after: the streams before it in the same tensor ("text" in front of "image" in Flux's single blocks).
    width: attribute path on the diffusion model; empty: the family's width.
    in_last: False if the list's last block does not return it.
    """

    name: str
    item: int | None = None
    after: tuple[str, ...] = ()
    width: str = ""
    in_last: bool = True


@dataclass(frozen=True)
class Output:
    """A stream in the output of a block or of a module in it.

    module: its path inside the block; empty: the block itself. dims: as of BlockList.
    joint: the module's attention is over text and image tokens together, so that its output also holds what the image
        reads of itself.
    """

    module: str = ""
    stream: Stream = Stream("image")
    dims: str = "BND"
    joint: bool = False


@dataclass(frozen=True)
class BlockList:
    """A list of blocks on the diffusion model (ModuleList, ModuleDict or Sequential) and the streams they return.

    path: attribute path of the list, if that is not its name.
    replaced_as: core's key ("double_block", i) for replacing block i; empty if core does not offer it.
    dims: letters for the output's dims: B the batch, D the channels, any others count tokens, in their order.
    last_child: core runs the children of each block one by one and never the block: the last child is hooked.
    beside: runs in parallel to the other lists, so depths do not count it.
    block_widths: attributes of the hooked module; the first that it has is its width (UNets: widths differ by block).
    reads: outputs of the modules through which a block reads the text, before they are added to the streams; without
        any, `unread` is the sentence that says why.
    holding: the list is no module of its own: it is every module, in running order, that has a child of this name.
    """

    name: str
    streams: tuple[Stream, ...] = (Stream("image"),)
    replaced_as: str = "double_block"
    path: str = ""
    dims: str = "BND"
    last_child: bool = False
    beside: bool = False
    block_widths: tuple[str, ...] = ()
    reads: tuple[Output, ...] = ()
    unread: str = "It is not known where its blocks read the text."
    holding: str = ""


@dataclass(frozen=True)
class StateArgument:
    """An argument of the model call that carries conditioning states, or one part of such an argument.

    argument, mask: names of apply_model's arguments; mask is the model's own token mask, if it takes one.
    spaces: width -> space id; another width gets an id made from the family's name and `name`.
    name: of the part, where one hook point has several.
    part: name of a function in `PARTS` that selects the rows and channels of the argument.
    dims: as of BlockList.
    read_by: the diffusion model's attribute that reads the states; a model with None there ignores them.
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
    where: attribute path -> required value, if several families share one class.
    lists: in running order; those that a model lacks are left out.
    width, channels: attribute paths of the hidden state's width and the number of input channels. Parts of a path are
        attributes or indices ("blocks.0.norm.weight.shape.0").
    entry: path of a module that runs once in each forward pass (not if a cache answers without one).
    layout: name of a function in `LAYOUTS`.
    states: hook point -> its state arguments; the first is the default.
    names: (width, blocks in the first list, input channels) -> model name; other models are named by these numbers.
    tested: False for the generic shape of a model without a row.
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
