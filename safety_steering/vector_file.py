"""The safety vector's file, `*.safetensors`, format version 1.

Tensors are named as in `SafetyVector.tensors`; metadata values are strings, those of structured fields JSON. Unknown
metadata keys and tensors are ignored, a minimum set is demanded, and everything is checked before a vector exists.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from .atomic import write_atomically
from .errors import SafetySteeringError, VectorFileError
from .vector import STATISTICS, Anchors, Direction, HookPointDirections, SafetyVector, Suggestion, VectorInfo

FORMAT = "safety_vector"
FORMAT_VERSION = 1
REQUIRED_METADATA = ("format", "format_version", "kind", "gap_kind", "spaces", "categories")
MAX_HEADER_BYTES = 16 * 1024 * 1024
_TEXT_FIELDS = {f.name for f in fields(VectorInfo) if f.type == "str"}


def save_vector(vector: SafetyVector, path: str | os.PathLike[str], *, overwrite: bool = True) -> Path:
    """Write `vector` to `path`, whole or not at all; returns the path. `load_vector` reads it back bit-exactly.

    Raises:
        VectorFileError: the name does not end in `.safetensors`.
        FileExistsError: the file exists and `overwrite` is False.
    """
    if Path(path).suffix != ".safetensors":
        raise VectorFileError(f"'{Path(path).name}' must end in .safetensors.")
    # clones: safetensors refuses tensors that share memory, as two equal statistics may
    tensors = {name: tensor.contiguous().clone() for name, tensor in vector.tensors().items()}
    return write_atomically(path, save(tensors, metadata=_metadata(vector)), overwrite=overwrite)


def load_vector(path: str | os.PathLike[str]) -> SafetyVector:
    """Read and check a safety vector.

    Raises:
        VectorFileError: the file is missing, damaged, of another format or a newer version, or its content is invalid.
    """
    path = Path(path)
    metadata = read_metadata(path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        return _assemble(metadata, tensors)
    except (SafetensorError, OSError) as error:
        raise VectorFileError(f"{path.name} cannot be read: {error}.") from error
    except SafetySteeringError as error:
        raise VectorFileError(f"{path.name}: {error}") from error


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read a vector file's metadata without its tensors, and check that it is a safety vector we can read.

    Raises:
        VectorFileError: as `load_vector`.
    """
    path = Path(path)
    try:
        _check_header_size(path)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise VectorFileError(f"{path.name} is not a readable safetensors file: {error}.") from error
    if metadata.get("format") != FORMAT:
        raise VectorFileError(
            f"{path.name} is a safetensors file, but not a safety vector (its format is "
            f"'{metadata.get('format', 'not given')}'). Choose a file made by Save Safety Vector."
        )
    missing = [key for key in REQUIRED_METADATA if key not in metadata]
    if missing:
        raise VectorFileError(f"{path.name} lacks the metadata {', '.join(missing)}. The file was not written whole.")
    version = metadata["format_version"][:20]
    if not (version.isascii() and version.isdecimal() and 1 <= int(version) <= FORMAT_VERSION):
        raise VectorFileError(
            f"{path.name} has format version {version}; this pack reads versions 1 to {FORMAT_VERSION}. "
            "Update Safety Steering."
        )
    return metadata


def read_label(path: str | os.PathLike[str]) -> str:
    """What a vector file fits, in a few words: family or model, and the space of its suggested or first hook point.

    Raises:
        VectorFileError: as `load_vector`.
    """
    metadata = read_metadata(path)
    try:
        info, spaces = read_info(metadata), _json(metadata, "spaces", dict)
    except VectorFileError as error:
        raise VectorFileError(f"{Path(path).name}: {error}") from error
    places = [name for name in info.suggestion.hook_points if name in spaces] or list(spaces)
    more = f" +{len(spaces) - 1}" if len(spaces) > 1 else ""
    return f"{info.model_name or info.family or info.kind}, {spaces[places[0]]}{more}" if places else info.kind


def file_sha256(path: str | os.PathLike[str]) -> str:
    """The sha256 of a file's bytes, as a host's policy pins it."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _check_header_size(path: Path) -> None:
    """A safetensors file opens with the length of its header; check it before anything allocates that much."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if size < 10 or not 2 <= header <= min(size - 8, MAX_HEADER_BYTES):
        raise VectorFileError(
            f"{path.name} is not a whole safetensors file: its header claims {header} bytes of {size}. "
            "Download or save it again."
        )


def _metadata(vector: SafetyVector) -> dict[str, str]:
    """`vector`'s metadata as strings; fields at their default are left out."""
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "spaces": json.dumps({name: point.space for name, point in vector.hook_points.items()}),
        "categories": json.dumps(vector.categories),
    }
    for info_field in fields(VectorInfo):
        value = getattr(vector.info, info_field.name)
        default = info_field.default
        if info_field.default_factory is not MISSING:
            default = info_field.default_factory()
        if value != default:
            plain = asdict(value) if isinstance(value, Suggestion) else value
            metadata[info_field.name] = value if info_field.name in _TEXT_FIELDS else json.dumps(plain)
    if vector.anchors is not None:
        metadata["anchor_texts"] = json.dumps(vector.anchors.texts)
    return metadata


def _assemble(metadata: Mapping[str, str], tensors: Mapping[str, torch.Tensor]) -> SafetyVector:
    def tensor(name: str) -> torch.Tensor:
        if name not in tensors:
            raise VectorFileError(f"the tensor {name} is missing.")
        return tensors[name].float()

    spaces = _json(metadata, "spaces", dict)
    categories = _json(metadata, "categories", list)
    if not all(isinstance(name, str) for name in [*spaces, *spaces.values(), *categories]):
        raise VectorFileError("the metadata 'spaces' and 'categories' must hold names.")
    hook_points = {
        name: HookPointDirections(
            space=space,
            sigma_edges=tensor(f"{name}/sigma_edges"),
            token_norm=tensor(f"{name}/token_norm"),
            categories={
                category: Direction(
                    direction=tensor(f"{name}/{category}/direction"),
                    **{statistic: tensor(f"{name}/{category}/{statistic}") for statistic in STATISTICS},
                )
                for category in categories
            },
        )
        for name, space in spaces.items()
    }
    anchors = None
    if "anchors/activations" in tensors:
        anchors = Anchors(tensor("anchors/activations"), tuple(map(str, _json(metadata, "anchor_texts", list))))
    return SafetyVector(hook_points, read_info(metadata), anchors=anchors)


def read_info(metadata: Mapping[str, str]) -> VectorInfo:
    """The VectorInfo written in a file's metadata.

    Raises:
        VectorFileError: a structured field does not read as JSON of the right type.
    """
    values: dict[str, Any] = {name: metadata[name] for name in _TEXT_FIELDS if name in metadata}
    for name in ("block_counts", "parameters", "counts", "validation_auc"):
        values[name] = _json(metadata, name, dict, {})
    values["provenance"] = tuple(_json(metadata, "provenance", list, []))
    values["validated_on"] = tuple(map(str, _json(metadata, "validated_on", list, [])))
    suggestion = _json(metadata, "suggestion", dict, {})
    window = _json(metadata, "window", list, [0.0, 1.0])
    try:
        start, end = (float(edge) for edge in window)
        values["window"] = (start, end)
        values["block_counts"] = {name: int(count) for name, count in values["block_counts"].items()}
        values["validation_auc"] = {name: float(auc) for name, auc in values["validation_auc"].items()}
        values["suggestion"] = Suggestion(
            strength=float(suggestion.get("strength", 1.0)),
            hook_points=tuple(map(str, suggestion.get("hook_points", ()))),
            intervention=str(suggestion.get("intervention", "")),
            mix={str(name): float(weight) for name, weight in dict(suggestion.get("mix", {})).items()},
        )
    except (TypeError, ValueError) as error:
        raise VectorFileError(f"the metadata holds a value of the wrong kind: {error}.") from error
    return VectorInfo(**values)


def _json(metadata: Mapping[str, str], key: str, kind: type, default: Any = None) -> Any:
    """The JSON value under `key`, checked to be a `kind`."""
    if key not in metadata and default is not None:
        return default
    try:
        value = json.loads(metadata[key])
    except (KeyError, ValueError, RecursionError):
        value = None
    if not isinstance(value, kind):
        raise VectorFileError(f"the metadata '{key}' does not read as a JSON {kind.__name__}.")
    return value
