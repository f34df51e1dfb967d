"""A target's states of anchors from disk: a folder of activations, or one safetensors file.

The file holds `activations` (n, D), the anchors' pooled states, and if there are any `token` (n, D), one token's of
each. Its metadata may say `hook_point`, `space`, `name`, `family`, `weight_fingerprint`, `block_counts` (JSON) and
`texts` (JSON); without texts row i is the vector's anchor i.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from .activations import SAFE, Activations
from .alignment.fit import AnchorStates, Side
from .directions.native import merged_bins
from .errors import SafetySteeringError


@dataclass(frozen=True, eq=False)
class FoundStates:
    """States of some of the anchors. rows: which of the anchors, in the states' order."""

    states: AnchorStates
    rows: tuple[int, ...]
    side: Side


def read_target_states(
    path: Path, texts: Sequence[str], *, hook_point: str = "", space: str = "", name: str = ""
) -> FoundStates:
    """The target states of the anchors `texts` that are at `path`. What is given by name overrides what the disk says.

    Raises:
        SafetySteeringError: nothing usable is there, or its rows cannot be told.
    """
    found = _from_folder(path, texts, hook_point) if path.is_dir() else _from_file(path, texts)
    side = found.side
    chosen = Side(
        hook_point=hook_point or side.hook_point,
        space=space or side.space,
        name=name or side.name,
        family=side.family,
        weight_fingerprint=side.weight_fingerprint,
        block_counts=side.block_counts,
    )
    if not chosen.hook_point or not chosen.space:
        raise SafetySteeringError(
            f"{path.name} does not say which states it holds. Give --hook-point (such as conditioning) and --space "
            "(such as umt5xxl.last)."
        )
    return FoundStates(found.states, found.rows, chosen)


def _from_folder(path: Path, texts: Sequence[str], hook_point: str) -> FoundStates:
    activations = Activations.open(path)
    source = activations.source
    place = hook_point or next(iter(source.hook_points))
    if not hook_point and len(source.hook_points) > 1:
        raise SafetySteeringError(
            f"{path.name} holds {len(source.hook_points)} hook points; choose one by --hook-point: "
            f"{', '.join(list(source.hook_points)[:6])}."
        )
    states = merged_bins(activations.read(place), 1)
    # a captured row's id ends in its text's hash; the unsafe rows of a folder are not looked at
    by_hash = {row.id.rpartition("/")[2]: number for number, row in enumerate(activations.rows()) if row.label == SAFE}
    pairs = [(i, by_hash[short]) for i, text in enumerate(texts) if (short := _short_hash(text)) in by_hash]
    if not pairs:
        raise SafetySteeringError(
            f"{path.name} holds none of the anchors. Capture the vector's own anchors on the model."
        )
    chosen = [number for _, number in pairs]
    side = Side(
        hook_point=place,
        space=source.hook_points[place][0],
        name=source.model_name,
        family=source.family,
        weight_fingerprint=source.weight_fingerprint,
        block_counts=source.block_counts,
    )
    anchors = AnchorStates(states.pooled[chosen, 0], states.token[chosen, 0])
    return FoundStates(anchors, tuple(i for i, _ in pairs), side)


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _from_file(path: Path, texts: Sequence[str]) -> FoundStates:
    try:
        with safe_open(path, framework="pt") as file:
            about: Mapping[str, str] = file.metadata() or {}
            pooled: torch.Tensor = file.get_tensor("activations").float()
            stored: list[str] = file.keys()
            token: torch.Tensor = file.get_tensor("token").float() if "token" in stored else pooled
        own: list[Any] = json.loads(about["texts"]) if "texts" in about else list(texts)
        counts = {str(key): int(value) for key, value in json.loads(about.get("block_counts", "{}")).items()}
    except FileNotFoundError as error:
        raise SafetySteeringError(
            f"There is no file of anchor states or folder of activations {path.name}. Check its name and where it is."
        ) from error
    except (SafetensorError, OSError, ValueError, AttributeError, TypeError) as error:
        raise SafetySteeringError(
            f"{path.name} is no file of anchor states: {error}. Expected safetensors with 'activations' (n, D)."
        ) from error
    if pooled.ndim != 2 or len(pooled) != len(own) or token.shape != pooled.shape:
        raise SafetySteeringError(
            f"{path.name} holds states of shape {tuple(pooled.shape)} for {len(own)} anchors; expected one row each."
        )
    numbers = {text: number for number, text in enumerate(own)}
    pairs = [(i, numbers[text]) for i, text in enumerate(texts) if text in numbers]
    if not pairs:
        raise SafetySteeringError(f"{path.name} holds none of the vector's anchors.")
    chosen = [number for _, number in pairs]
    names = {key: about.get(key, "") for key in ("hook_point", "space", "name", "family", "weight_fingerprint")}
    return FoundStates(
        AnchorStates(pooled[chosen], token[chosen]), tuple(i for i, _ in pairs), Side(**names, block_counts=counts)
    )
