"""The safety vector's file, `*.safetensors`, format versions 1 and 2.

Version 2 adds detectors; a vector without them is written as version 1, which older packs read.

Tensors are named as in `SafetyVector.tensors`; metadata values are strings, those of structured fields JSON. Unknown
metadata keys and tensors are ignored. Required ones are checked, with all values, before a vector is made.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from ..errors import VectorFileError
from ..files import (
    MAX_HEADER_BYTES,
    check_header_size,
    one_sentence,
    read_json,
    write_tensors,
)
from ..hook_point import HookPoint
from ..language_models.words import Words
from .detector import Detector, Detectors
from .vector import (
    DETECTOR_TENSORS,
    STATISTICS,
    Anchors,
    Direction,
    HookPointDirections,
    SafetyVector,
    Suggestion,
    VectorInfo,
)

FORMAT = "safety_vector"
FORMAT_VERSION = 2
REQUIRED_METADATA = ("format", "format_version", "kind", "gap_kind", "spaces", "categories")
_DTYPES = ("F32", "F16", "BF16")
_TEXT_FIELDS = {f.name for f in fields(VectorInfo) if f.type == "str"}


def save_vector(vector: SafetyVector, path: str | os.PathLike[str], *, overwrite: bool = True) -> Path:
    """Write `vector` to `path`, whole or not at all; returns the path. `load_vector` reads it back bit-exactly.

    Raises:
        VectorFileError: the name does not end in `.safetensors`, or there is more metadata than `load_vector` takes.
        FileExistsError: the file exists and `overwrite` is False.

    Example:
        >>> from tempfile import mkdtemp
        >>> from safety_steering import load_vector, save_vector
        >>> vector = load_vector("vectors/smollm2_135m_portable.safetensors")
        >>> path = save_vector(vector.with_info(licence="CC0-1.0"), f"{mkdtemp()}/mine.safetensors")
        >>> load_vector(path).info.licence
        'CC0-1.0'
    """
    if Path(path).suffix != ".safetensors":
        raise VectorFileError(f"'{Path(path).name}' must end in .safetensors.")
    tensors, metadata = _compact(vector.tensors()), _metadata(vector)
    _check_readable(metadata, tensors)
    return write_tensors(path, tensors, metadata, overwrite=overwrite)


def _compact(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors, with the anchors (by far the largest) in half precision if that is exact."""
    kept = dict(tensors)
    for name in ("anchors/activations", "anchors/words"):
        states = kept.get(name)
        if states is not None and torch.equal(states.half().float(), states):
            kept[name] = states.half()
    return kept


def _check_readable(metadata: Mapping[str, str], tensors: Mapping[str, torch.Tensor]) -> None:
    """Raise VectorFileError if `load_vector` would refuse the file for its size."""
    read_info(metadata)
    read_json(metadata, "anchor_texts", list, [])
    header = len(json.dumps(dict(metadata))) + sum(len(name) + 128 for name in tensors)
    if header > MAX_HEADER_BYTES:
        raise VectorFileError(
            f"the vector's texts and names take {header} bytes, more than the {MAX_HEADER_BYTES} a file may hold. "
            "Use fewer anchors, hook points or categories."
        )


def load_vector(path: str | os.PathLike[str]) -> SafetyVector:
    """Read and check a safety vector. Tensors that no vector needs are never read.

    Raises:
        VectorFileError: the file is missing, damaged, of another format or a newer version, or its content is invalid.

    Example:
        >>> from safety_steering import load_vector
        >>> vector = load_vector("vectors/smollm2_135m_portable.safetensors")
        >>> vector.info.kind, list(vector.hook_points)
        ('source', ['source.14'])
    """
    path = Path(path)
    with one_sentence(path):
        metadata = _read_metadata(path)
        with safe_open(path, framework="pt") as file:
            return _assemble(metadata, file)


def is_vector(path: str | os.PathLike[str]) -> bool:
    """Whether a file's header says that it is a safety vector, of whatever version, and also if the rest is cut off."""
    try:
        check_header_size(Path(path))
        with open(path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
        return bool(header["__metadata__"]["format"] == FORMAT)
    except (OSError, ValueError, TypeError, KeyError, RecursionError, VectorFileError):
        return False


def _read_metadata(path: Path) -> dict[str, str]:
    check_header_size(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    if metadata.get("format") != FORMAT:
        raise VectorFileError(
            "a safetensors file, but not a safety vector (its format is "
            f"'{metadata.get('format', 'not given')}'). Choose a file made by Save Safety Vector."
        )
    missing = [key for key in REQUIRED_METADATA if key not in metadata]
    if missing:
        raise VectorFileError(f"it lacks the metadata {', '.join(missing)}. The file was not written whole.")
    version = metadata["format_version"][:20]
    if not (version.isascii() and version.isdecimal() and 1 <= int(version) <= FORMAT_VERSION):
        raise VectorFileError(
            f"it has format version {version}; this pack reads versions 1 to {FORMAT_VERSION}. Update Safety Steering."
        )
    return metadata


def read_label(path: str | os.PathLike[str]) -> str:
    """What a vector file fits, in a few words: family or model, and the space of its suggested or first hook point.

    Raises:
        VectorFileError: as `load_vector`.
    """
    path = Path(path)
    with one_sentence(path):
        metadata = _read_metadata(path)
        info, spaces = read_info(metadata), read_json(metadata, "spaces", dict)
    names = [name for name in info.suggestion.hook_points if name in spaces] or list(spaces)
    more = f" +{len(spaces) - 1}" if len(spaces) > 1 else ""
    return f"{info.model_name or info.family or info.kind}, {spaces[names[0]]}{more}" if names else info.kind


def _metadata(vector: SafetyVector) -> dict[str, str]:
    """`vector`'s metadata as strings; fields at their default are left out."""
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION if vector.detectors else 1),
        "spaces": json.dumps({name: point.space for name, point in vector.hook_points.items()}),
        "categories": json.dumps(vector.categories),
    }
    for info_field in fields(VectorInfo):
        value = getattr(vector.info, info_field.name)
        default = info_field.default
        if info_field.default_factory is not MISSING:
            default = info_field.default_factory()
        if value != default:
            plain = value.facts() if isinstance(value, Suggestion) else value
            metadata[info_field.name] = value if info_field.name in _TEXT_FIELDS else json.dumps(plain)
    if vector.anchors is not None:
        metadata["anchor_hook_point"] = vector.anchors.hook_point
        metadata["anchor_texts"] = json.dumps(vector.anchors.texts)
    if vector.detectors is not None:
        found = vector.detectors
        facts = {"hook_point": found.hook_point, "space": found.space, "benign": found.benign}
        facts |= {"whole_alone": True} if found.whole_alone else {}
        metadata["detectors"] = json.dumps(facts)
    return metadata


def _assemble(metadata: Mapping[str, str], file: Any) -> SafetyVector:
    names = frozenset(file.keys())

    def tensor(name: str) -> torch.Tensor:
        if name not in names:
            raise VectorFileError(f"the tensor {name} is missing.")
        dtype, shape = file.get_slice(name).get_dtype(), file.get_slice(name).get_shape()
        if dtype not in _DTYPES or len(shape) > 2:
            raise VectorFileError(
                f"the tensor {name} is {dtype} of shape {shape}, expected F32 in one or two dimensions."
            )
        values: torch.Tensor = file.get_tensor(name)
        return values.float()

    spaces = read_json(metadata, "spaces", dict)
    categories = read_json(metadata, "categories", list)
    if not all(isinstance(name, str) for name in [*spaces, *spaces.values(), *categories]):
        raise VectorFileError("the metadata 'spaces' and 'categories' must hold names.")
    hook_points = {
        HookPoint(name): HookPointDirections(
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
    if "anchors/activations" in names:
        # older files do not give the anchors' hook point: it is their first, mostly their only one
        anchors = Anchors(
            hook_point=HookPoint(metadata.get("anchor_hook_point", next(iter(spaces), ""))),
            texts=tuple(map(str, read_json(metadata, "anchor_texts", list))),
            states=tensor("anchors/activations"),
            words=_words(tensor) if "anchors/words" in names else None,
        )
    detectors = None
    if facts := read_json(metadata, "detectors", dict, {}):
        detectors = Detectors(
            hook_point=HookPoint(str(facts.get("hook_point", ""))),
            space=str(facts.get("space", "")),
            categories={
                category: Detector(**{name: tensor(f"detector/{category}/{name}") for name in DETECTOR_TENSORS})
                for category in categories
            },
            benign=read_count(facts.get("benign", 0)),
            whole_alone=facts.get("whole_alone") is True,
        )
    return SafetyVector(hook_points, read_info(metadata), anchors=anchors, detectors=detectors)


def _words(tensor: Callable[[str], torch.Tensor]) -> Words:
    spans = tensor("anchors/word_spans")
    if spans.ndim != 2 or spans.shape[1] != 3 or not bool((spans.isfinite() & (spans >= 0)).all()):
        raise VectorFileError(f"the tensor anchors/word_spans has shape {tuple(spans.shape)}, expected (m, 3) counts.")
    return Words(spans[:, 0].long(), spans[:, 1:].long(), tensor("anchors/words"))


def read_count(value: Any) -> int:
    """A count in the metadata; VectorFileError if it is no number."""
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise VectorFileError(f"the metadata holds a value of the wrong kind: {error}.") from error


def read_info(metadata: Mapping[str, str]) -> VectorInfo:
    """The VectorInfo written in a file's metadata.

    Raises:
        VectorFileError: a structured field does not read as JSON of the right type.
    """
    values: dict[str, Any] = {name: metadata[name] for name in _TEXT_FIELDS if name in metadata}
    for name in ("block_counts", "parameters", "counts", "validation_auc"):
        values[name] = read_json(metadata, name, dict, {})
    values["provenance"] = tuple(read_json(metadata, "provenance", list, []))
    if not all(isinstance(step, dict) for step in values["provenance"]):
        raise VectorFileError("the metadata 'provenance' must hold one JSON object a step.")
    values["validated_on"] = tuple(map(str, read_json(metadata, "validated_on", list, [])))
    suggestion = read_json(metadata, "suggestion", dict, {})
    window = read_json(metadata, "window", list, [0.0, 1.0])
    try:
        values["window"] = _window(window)
        values["block_counts"] = {name: int(count) for name, count in values["block_counts"].items()}
        values["validation_auc"] = {name: float(auc) for name, auc in values["validation_auc"].items()}
        values["suggestion"] = _suggestion(suggestion)
    except (TypeError, ValueError, OverflowError) as error:
        raise VectorFileError(f"the metadata holds a value of the wrong kind: {error}.") from error
    return VectorInfo(**values)


def _suggestion(facts: Mapping[str, Any]) -> Suggestion:
    """The suggestion of a file; what an older file lacks stays at its default."""
    default = Suggestion()

    def text(name: str) -> str:
        return str(facts.get(name, ""))

    def number(name: str) -> float:
        return float(facts.get(name, getattr(default, name)))

    def numbers(name: str) -> dict[str, float]:
        return {str(key): float(value) for key, value in dict(facts.get(name, {})).items()}

    return Suggestion(
        strength=number("strength"),
        hook_points=tuple(map(str, facts.get("hook_points", ()))),
        intervention=text("intervention"),
        mix=numbers("mix"),
        norm=text("norm"),
        gate=text("gate"),
        threshold=number("threshold"),
        false_alarm=number("false_alarm"),
        token_threshold=None if facts.get("token_threshold") is None else number("token_threshold"),
        window=_window(facts.get("window", default.window)),
        branch=text("branch"),
        strengths=numbers("strengths"),
        basis=text("basis"),
        basis_model=text("basis_model"),
        basis_judge=text("basis_judge"),
        basis_n=int(facts.get("basis_n", 0)),
    )


def _window(edges: Sequence[Any]) -> tuple[float, float]:
    start, end = (float(edge) for edge in edges)
    return start, end
