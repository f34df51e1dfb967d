"""A safetensors file's header: names and true shapes of its tensors, how its weights are quantised, and its shards.

Packed weights show other shapes than the model has. Their marks tell the true ones: ComfyUI's `comfy_quant` entries and
`_quantization_metadata`, NVFP4's second scale, and bitsandbytes' quant_state. Needs neither ComfyUI nor torch.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from ...safety_steering.errors import SafetySteeringError

MAX_HEADER_BYTES = 64 * 1024 * 1024
MAX_MARK_BYTES = 64 * 1024  # of one quantisation mark, a small JSON text
MAX_SHARDS = 1000
COMFY, BITSANDBYTES = ".comfy_quant", re.compile(r"(.+)\.quant_state\.bitsandbytes__(\w+)")
# model-00001-of-00003.safetensors, and with other digits, underscores or a variant's name behind
SHARD = re.compile(r"(.+?[-_])(\d{1,6})([-_]of[-_])(\d{1,6})((?:\.[\w-]+)*\.safetensors)", re.IGNORECASE)
UNKNOWN = "packed in an unknown way"
WHOLE_VALUES = ("U8", "I8", "I16", "I32", "U16", "U32")  # dtypes that may hold several weights in a value

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Header:
    """shapes: name -> true shape; () of a weight that is packed in an unknown way. formats: quantisation -> tensors."""

    shapes: Shapes
    formats: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Shard:
    """One of a model's files. number: from 1. missing: the numbers of the others that are not beside it."""

    number: int
    count: int
    missing: tuple[int, ...]


def read_header(path: str | os.PathLike[str]) -> Header:
    """The header of a safetensors file, and its quantisation marks.

    Raises:
        SafetySteeringError: the file is not a safetensors file.
    """
    complaint = f"'{os.fspath(path)}' is not a safetensors file, so its model cannot be recognised."
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if not 2 <= size <= MAX_HEADER_BYTES:
            raise SafetySteeringError(complaint)
        text = file.read(size)
        try:
            entries = json.loads(text)
            metadata = entries.pop("__metadata__", None) or {}
            shapes = {name: tuple(entry["shape"]) for name, entry in entries.items()}
            dtypes = {name: str(entry.get("dtype", "")) for name, entry in entries.items()}
            marks = _marks(file, size + 8, entries, metadata)
            true, formats = _true_shapes(shapes, dtypes, marks)
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError) as error:
            raise SafetySteeringError(complaint) from error
    return Header(true, formats)


def shard_of(path: str | os.PathLike[str]) -> Shard | None:
    """Which shard of a model a file is, by its name: `model-00001-of-00003.safetensors`; None if it is whole."""
    path = Path(path)
    found = SHARD.fullmatch(path.name)
    if found is None or not 1 <= int(found[2]) <= int(found[4]) <= MAX_SHARDS or int(found[4]) == 1:
        return None
    others = {number: file for number, file in _shards(path).items() if not file.is_file()}
    return Shard(int(found[2]), int(found[4]), tuple(others))


def read_model(path: str | os.PathLike[str]) -> Header:
    """The headers of a file and of the shards beside it, as one. Raises SafetySteeringError as `read_header`."""
    own = read_header(path)
    if shard_of(path) is None:
        return own
    headers = [own] + [read_header(file) for file in _shards(Path(path)).values() if file.is_file()]
    formats: Counter[str] = Counter()
    for header in headers:
        formats.update(header.formats)
    return Header({name: shape for header in headers for name, shape in header.shapes.items()}, dict(formats))


def _shards(path: Path) -> dict[int, Path]:
    """The other shards of a shard's model, by number."""
    name, number, of, count, end = SHARD.fullmatch(path.name).groups()  # type: ignore[union-attr]  # the caller has matched it
    others = (i for i in range(1, int(count) + 1) if i != int(number))
    return {i: path.with_name(f"{name}{i:0{len(number)}}{of}{count}{end}") for i in others}


def _marks(file: BinaryIO, start: int, entries: Mapping[str, Any], metadata: Mapping[str, str]) -> dict[str, Any]:
    """Layer -> its quantisation: at least its `format`, and its `shape` if the mark tells it."""
    layers = json.loads(metadata.get("_quantization_metadata", "{}")).get("layers", {})
    marks = {name: dict(mark) for name, mark in layers.items()}
    for name, entry in entries.items():
        packed = BITSANDBYTES.fullmatch(name)
        if not packed and not name.endswith(COMFY):
            continue
        begin, end = entry["data_offsets"]
        if not 0 <= end - begin <= MAX_MARK_BYTES:
            raise ValueError(f"the mark {name} is too large")
        file.seek(start + begin)
        found = json.loads(file.read(end - begin) or b"{}")
        if packed:
            shape = found.get("shape")
            marks[packed[1].removesuffix(".weight")] = {"format": f"bitsandbytes {packed[2]}", "shape": shape}
        else:
            marks[name.removesuffix(COMFY)] = dict(found)
    return marks


def _true_shapes(
    shapes: Shapes, dtypes: Mapping[str, str], marks: Mapping[str, Any]
) -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:
    """The tensors' shapes in the model, and how many weights each quantisation has."""
    formats: Counter[str] = Counter()
    true = dict(shapes)
    for name in shapes:
        if name.endswith(".weight"):
            known, true[name] = _true_shape(name, shapes, dtypes[name], marks.get(name.removesuffix(".weight"), {}))
            formats.update([known] if known else [])
    return true, dict(formats)


def _true_shape(name: str, shapes: Shapes, dtype: str, mark: Mapping[str, Any]) -> tuple[str, tuple[int, ...]]:
    """The quantisation of a weight, or "", and its shape in the model."""
    layer, shape = name.removesuffix(".weight"), shapes[name]
    scale = shapes.get(f"{layer}.weight_scale", ())
    given = str(mark.get("format", ""))
    if mark.get("shape"):
        return given, tuple(int(size) for size in mark["shape"])
    if given == "nvfp4" or (dtype == "U8" and f"{layer}.weight_scale_2" in shapes):
        return "nvfp4", (*shape[:-1], 2 * shape[-1])  # two weights a byte
    if given == "convrot_w4a4" and len(scale) == 2 and 64 * scale[-1] == 2 * shape[-1]:
        return given, (*shape[:-1], 2 * shape[-1])
    if given == "mxfp4" or (dtype == "U8" and len(scale) == 2 and 32 * scale[-1] == 2 * shape[-1]):
        return "mxfp4", (*shape[:-1], 2 * shape[-1])
    if given:
        return given, shape
    if dtype == "I8" and f"{layer}.SCB" in shapes:
        return "bitsandbytes int8", shape
    if dtype in WHOLE_VALUES and len(shape) > 1 and (not scale or dtype != "I8"):
        return UNKNOWN, ()
    if dtype.startswith("F8") and math.prod(shape) > 1:
        return f"float8 {dtype.removeprefix('F8_')}", shape
    return "", shape
