"""The alignment file, `*.safetensors`, format version 1.

Tensors are named as in `Alignment.tensors`; the metadata `facts` holds `Alignment.facts` as JSON. Sizes are checked
before they are allocated, then names, shapes and values.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from ..errors import SafetySteeringError, VectorFileError
from ..files import check_header_size, one_sentence, read_json, write_tensors
from ..hook_point import HookPoint
from .alignment import Alignment, AnchorStates, Side
from .maps import LAYOUTS, AlignmentSettings, SpaceMap
from .quality import Quality
from .words import WordAlignment

FORMAT = "safety_alignment"
FORMAT_VERSION = 1
MAX_VALUES = 2**31  # of one tensor; a map between two spaces of width 32768 has half as many


def save_alignment(alignment: Alignment, path: str | os.PathLike[str], *, overwrite: bool = True) -> Path:
    """Write an alignment to `path` atomically; returns the path.

    Raises:
        VectorFileError: the name does not end in `.safetensors`.
        FileExistsError: the file exists and `overwrite` is False.
    """
    if Path(path).suffix != ".safetensors":
        raise VectorFileError(f"'{Path(path).name}' must end in .safetensors.")
    metadata = {"format": FORMAT, "format_version": str(FORMAT_VERSION), "facts": json.dumps(alignment.facts())}
    return write_tensors(path, alignment.tensors(), metadata, overwrite=overwrite)


def load_alignment(path: str | os.PathLike[str]) -> Alignment:
    """Read and check an alignment.

    Raises:
        VectorFileError: the file is missing, damaged, of another format or a newer version, or its content is invalid.
    """
    path = Path(path)
    with one_sentence(path):
        check_header_size(path)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            _check_format(metadata)
            return _assemble(read_json(metadata, "facts", dict), file)


def _check_format(metadata: Mapping[str, str]) -> None:
    if metadata.get("format") != FORMAT:
        raise VectorFileError(
            f"a safetensors file, but not a safety alignment (its format is '{metadata.get('format', 'not given')}'). "
            "Choose a file made by Save Safety Alignment."
        )
    version = metadata.get("format_version", "")
    if version != str(FORMAT_VERSION):
        raise VectorFileError(
            f"it has format version {version[:20]}; this pack reads version {FORMAT_VERSION}. Update Safety Steering."
        )


def _assemble(facts: Mapping[str, Any], file: Any) -> Alignment:
    names = frozenset(file.keys())

    def tensor(name: str) -> torch.Tensor:
        if name not in names:
            raise VectorFileError(f"the tensor {name} is missing.")
        dtype, shape = file.get_slice(name).get_dtype(), file.get_slice(name).get_shape()
        if dtype != "F32" or not 1 <= len(shape) <= 2 or not 0 < math.prod(shape) <= MAX_VALUES:
            raise VectorFileError(f"the tensor {name} is {dtype} of shape {shape}, expected F32 in 1 or 2 dimensions.")
        found: torch.Tensor = file.get_tensor(name)
        return found

    try:
        kind = str(facts["map_kind"])
        chosen = {str(name): float(value) for name, value in facts["chosen"].items()}
        return Alignment(
            source=_side(facts["source"]),
            target=_in_encoder(_side(facts["target"])),
            settings=AlignmentSettings(**facts["settings"]),
            map=SpaceMap(kind, {name: tensor(f"map/{name}") for name in LAYOUTS.get(kind, {})}, chosen),
            source_mean=tensor("source/mean"),
            source_scale=tensor("source/scale"),
            target_mean=tensor("target/mean"),
            target_scale=tensor("target/scale"),
            target_anchors=AnchorStates(tensor("target/pooled"), tensor("target/token")),
            beta=float(facts["beta"]),
            quality=Quality(float(facts["r2"]), tensor("quality/own"), tensor("quality/other"), int(facts["fitted"])),
            texts_sha256=str(facts["texts_sha256"]),
            about=dict(facts["about"]),
            own_benign=AnchorStates(tensor("target/benign_pooled"), tensor("target/benign_token"))
            if "target/benign_pooled" in names
            else None,
            words=_words(facts["words"], tensor) if "words" in facts else None,
        )
    except SafetySteeringError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise VectorFileError(f"its facts are incomplete or invalid: {error}. Fit it again.") from error


def _in_encoder(side: Side) -> Side:
    """A target inside a text encoder by its present name; files of before Apply steered there call it a source's."""
    if side.hook_point.kind != "source":
        return side
    space = side.space.replace("/source.", "/encoder.")
    return replace(side, hook_point=HookPoint(f"encoder.{side.hook_point.number}"), space=space)


def _words(facts: Mapping[str, Any], tensor: Callable[[str], torch.Tensor]) -> WordAlignment:
    def space_map(name: str, folder: str) -> SpaceMap:
        chosen = {key: float(value) for key, value in facts["chosen"][name].items()}
        parts = LAYOUTS.get(str(facts["kind"]), {})
        return SpaceMap(str(facts["kind"]), {part: tensor(f"words/{folder}/{part}") for part in parts}, chosen)

    return WordAlignment(
        words=space_map("words", "map"),
        joint=space_map("joint", "joint"),
        source_scale=tensor("words/source_scale"),
        target_scale=tensor("words/target_scale"),
        tokens=tensor("words/tokens"),
        beta=float(facts["beta"]),
        r2=float(facts["r2"]),
        pairs=int(facts["pairs"]),
    )


def _side(facts: Mapping[str, Any]) -> Side:
    texts = {name: str(facts[name]) for name in ("space", "name", "family", "weight_fingerprint")}
    counts = {str(name): int(count) for name, count in facts["block_counts"].items()}
    return Side(HookPoint(facts["hook_point"]), **texts, block_counts=counts)
