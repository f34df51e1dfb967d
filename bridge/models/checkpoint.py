"""Recognises a diffusion model by its safetensors header: names and shapes of tensors, no weights.

Needs neither ComfyUI nor torch. The caller passes the rows of the model map, which name a family's blocks and spaces.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ...safety_steering.errors import SafetySteeringError, shortened
from .header import Shapes, Shard, read_model, shard_of
from .signatures import SIGNATURES, Signature

# prefixes of the diffusion model's tensors in checkpoints; the empty one is that of a file of the model alone
PREFIXES = ("", "model.diffusion_model.", "diffusion_model.", "net.", "core.", "model.diffusion_model.core.", "model.")


@dataclass(frozen=True)
class Checkpoint:
    """A recognised checkpoint.

    block_counts: block list -> length, in the row's order. width: channels of the hidden state. widths: stream ->
    channels, where they differ. states: channels of the prompt states, 0 if the header does not show them. unread: the
    family's modules that read states of their own (`StateArgument.read_by`) and are missing here.
    """

    family: str
    block_counts: Mapping[str, int]
    width: int
    widths: Mapping[str, int]
    states: int
    unread: frozenset[str] = frozenset()


def recognise(shapes: Shapes, rows: Iterable[Any]) -> Checkpoint | None:
    """The checkpoint that has these tensors; None if no signature fits. rows: of the model map."""
    by_name = {row.name: row for row in rows}
    for prefix in PREFIXES:
        own = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
        for signature in SIGNATURES:
            if signature.family in by_name and _fits(signature, own):
                row = by_name[signature.family]
                counts = {blocks.name: _count(blocks.path or blocks.name, own) for blocks in row.lists}
                readers = {state.read_by for states in row.states.values() for state in states if state.read_by}
                return Checkpoint(
                    signature.family,
                    {name: count for name, count in counts.items() if count},
                    _size(signature.width, own),
                    {stream: _size(size, own) for stream, size in signature.others.items()},
                    _size(signature.states, own),
                    frozenset(r for r in readers if not any(name.startswith(f"{r}.") for name in own)),
                )
    return None


def _fits(signature: Signature, shapes: Shapes) -> bool:
    return all(name in shapes for name in signature.has) and all(
        _size(size, shapes) == value for size, value in signature.where.items()
    )


def _size(size: str, shapes: Shapes) -> int:
    """The size written as in `Signature`; 0 if a tensor is missing."""
    return math.prod(_dim(factor, shapes) for factor in size.split("*"))


def _dim(factor: str, shapes: Shapes) -> int:
    name, _, dim = factor.partition(":")
    shape = shapes.get(name, ())
    return shape[int(dim)] if dim and len(shape) > int(dim) else 0


def _count(path: str, shapes: Shapes) -> int:
    pattern = re.compile(re.escape(path) + r"\.(?:block)?(\d+)\.")
    return len({match[1] for name in shapes if (match := pattern.match(name))})


def inspect_checkpoint(path: str | os.PathLike[str], rows: Iterable[Any]) -> str:
    """A few lines on a file that is a checkpoint of a family in `rows`; else an empty string."""
    rows = tuple(rows)
    try:
        header = read_model(path)
        found = recognise(header.shapes, rows)
    except SafetySteeringError:
        return ""
    if found is None:
        return ""
    lines = [describe_checkpoint(found, next(row for row in rows if row.name == found.family))]
    if header.formats:
        lines.append(f"weights   {', '.join(f'{name} ({count} tensors)' for name, count in header.formats.items())}")
    if shard := shard_of(path):
        lines.append(f"shard     {_described(shard)}")
    return "\n".join(lines)


def _described(shard: Shard) -> str:
    if shard.missing:
        missing = ", ".join(map(str, shard.missing[:8])) + (" ..." if len(shard.missing) > 8 else "")
        return f"{shard.number} of {shard.count}; not here: {missing}. Blocks are counted over what is here"
    return f"{shard.number} of {shard.count}; described with the others, which are beside it"


def describe_checkpoint(checkpoint: Checkpoint, row: Any) -> str:
    """A few lines on a recognised checkpoint and its hook points. row: of its family, in the model map."""
    first = next(iter(checkpoint.block_counts.values()), 0)
    names = [name for (width, blocks, _), name in row.names.items() if (width, blocks) == (checkpoint.width, first)]
    lines = [f"family    {checkpoint.family}"]
    if names:
        lines.append(f"model     {' or '.join(names)}")
    for blocks in row.lists:
        if blocks.name in checkpoint.block_counts:
            streams = ", ".join(
                f"{stream.name} ({checkpoint.widths.get(stream.name, checkpoint.width)} wide"
                f"{' in the first, other blocks differ' if blocks.block_widths else ''})"
                for stream in blocks.streams
            )
            lines.append(f"blocks    {checkpoint.block_counts[blocks.name]} {blocks.name}: {streams}")
    for hook_point, states in row.states.items():
        read = [state for state in states if state.read_by not in checkpoint.unread]
        if read:
            width = checkpoint.states if hook_point == "conditioning" else 0
            lines.append(f"spaces    {hook_point}: {', '.join(_spaces(checkpoint.family, hook_point, read, width))}")
    return "\n".join(lines)


def _spaces(family: str, hook_point: str, states: Iterable[Any], width: int) -> list[str]:
    """The spaces of a hook point for prompt states of this width; 0: every space of the family."""
    states = tuple(states)
    if width and not any(width in state.spaces for state in states):  # not a model of the map
        if any(state.part for state in states):
            return [f"{family}.{state.name} (the header does not tell its width)" for state in states]
        return [f"{family}.{state.name or hook_point}{width} ({width} wide)" for state in states]
    return [
        f"{space} ({known} wide)"
        for state in states
        for known, space in state.spaces.items()
        if known == width or width not in state.spaces
    ]


def describe_unknown(path: str | os.PathLike[str]) -> str:
    """One sentence on a file that is neither a safety vector nor a model that the map knows."""
    name = shortened(os.path.basename(os.path.abspath(path)))
    if os.path.isdir(path):
        return f"'{name}' is a folder. Name one file in it."
    try:
        tensors = sorted(read_model(path).shapes)
    except SafetySteeringError:
        with open(path, "rb") as file:
            gguf = file.read(4) == b"GGUF"
        if gguf:
            return f"'{name}' is a GGUF file, which inspect does not read. Give the model's safetensors file."
        return (
            f"'{name}' is not a complete safetensors file, so it is neither a safety vector nor a model that inspect "
            "reads. Give another file, or download it again."
        )
    example = shortened(tensors[len(tensors) // 2]) if tensors else ""
    if (shard := shard_of(path)) and shard.missing:
        return f"'{name}' is shard {shard.number} of {shard.count} of a model. Put all its shards into one folder."
    held = f"tensors such as {example} ({len(tensors)} in all)" if tensors else "no tensors"
    return (
        f"'{name}' is neither a safety vector nor a known diffusion model; it holds {held}. Give a file "
        "of models/diffusion_models or models/checkpoints; docs/models.md lists the models."
    )
