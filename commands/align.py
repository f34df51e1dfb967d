"""Command line: `align` fits a benign alignment from states on disk, `transfer` carries a vector over by it.

A target's states of the anchors are a folder of activations, or a safetensors file with `activations` (n, D), the
pooled states, and optionally `token` (n, D), the state of one token of each. Its metadata may hold `hook_point`,
`space`, `name`, `family`, `weight_fingerprint`, `block_counts` (JSON) and `texts` (JSON); without texts, row i is the
vector's anchor i.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ..safety_steering.activations import SAFE, Activations
from ..safety_steering.alignment.anchors import coverage, refuse_unsafe
from ..safety_steering.alignment.file import load_alignment, save_alignment
from ..safety_steering.alignment.fit import AnchorStates, Side, fit_alignment
from ..safety_steering.alignment.maps import METHODS, AlignmentSettings
from ..safety_steering.alignment.report import report_alignment
from ..safety_steering.alignment.transfer import carry_over
from ..safety_steering.directions.native import merged_bins
from ..safety_steering.errors import SafetySteeringError
from ..safety_steering.vectors.file import load_vector, save_vector
from ..safety_steering.vectors.vector import describe


def add_align_commands(commands: Any) -> None:
    """Add both to the parser's `commands`."""
    align = commands.add_parser("align", help="fit a benign alignment from a portable vector to a target's states")
    align.add_argument("vector", help="a portable vector, with its anchors inside")
    align.add_argument(
        "states", help="the target's states of those anchors: a folder of activations, or a safetensors file"
    )
    align.add_argument("alignment", help="the file to write, *.safetensors")
    align.add_argument("--method", choices=METHODS, default=METHODS[0], help=f"default {METHODS[0]}")
    align.add_argument("--rank", type=int, default=0, help="of reduced_rank; 0 finds a good one")
    align.add_argument("--hidden", type=int, default=256, help="width of the mlp's hidden layer")
    align.add_argument("--held-out", type=float, default=0.2, help="share of the anchors to judge by")
    align.add_argument("--seed", type=int, default=0, help="of the anchors that are held out")
    align.add_argument("--hook-point", default="", help="such as conditioning; needed if a folder has several")
    align.add_argument("--space", default="", help="such as umt5xxl.last, if the states do not say it")
    align.add_argument("--name", default="", help="of the target model, if the states do not say it")
    align.add_argument("--overwrite", action="store_true", help="replace an existing file")
    align.set_defaults(run=_align)
    carry = commands.add_parser("transfer", help="carry a portable vector into the model that an alignment leads to")
    carry.add_argument("vector", help="the portable vector")
    carry.add_argument("alignment", help="written by align, or by Save Safety Alignment")
    carry.add_argument("transferred", help="the file to write, *.safetensors")
    carry.add_argument("--sharpen", type=float, default=1.0, help="shrinkage of the sharpening; 0 switches it off")
    carry.add_argument("--overwrite", action="store_true", help="replace an existing file")
    carry.set_defaults(run=_transfer)


def _align(options: argparse.Namespace) -> str:
    settings = AlignmentSettings(options.method, options.rank, options.hidden, options.held_out, options.seed)
    vector = load_vector(options.vector)
    anchors = vector.anchors
    if anchors is None or vector.info.kind != "source":
        raise SafetySteeringError(
            f"{Path(options.vector).name} is not a portable vector with anchors. Use a bundled one, or one made by "
            "extract."
        )
    found = read_target_states(
        Path(options.states), anchors.texts, hook_point=options.hook_point, space=options.space, name=options.name
    )
    texts = [anchors.texts[row] for row in found.rows]
    source = anchors.states[list(found.rows)]
    refuse_unsafe(vector, anchors.hook_point, source, texts)
    side = Side(anchors.hook_point, vector.at(anchors.hook_point).space, name=vector.info.model_name)
    alignment = fit_alignment(source, found.states, settings, source_side=side, target_side=found.side, texts=texts)
    covered = coverage(vector.at(anchors.hook_point), source, alignment)
    alignment = replace(alignment, about={**alignment.about, "coverage": covered})
    path = save_alignment(alignment, options.alignment, overwrite=options.overwrite)
    return f"{report_alignment(alignment, vector)}\nwritten: {path.name}"


def _transfer(options: argparse.Namespace) -> str:
    carried = carry_over(load_vector(options.vector), load_alignment(options.alignment), options.sharpen)
    path = save_vector(carried, options.transferred, overwrite=options.overwrite)
    return f"{describe(carried)}\nwritten: {path.name}"


@dataclass(frozen=True, eq=False)
class FoundStates:
    """States of some of the anchors. rows: their indices among the anchors, in the states' order."""

    states: AnchorStates
    rows: tuple[int, ...]
    side: Side


def read_target_states(
    path: Path, texts: Sequence[str], *, hook_point: str = "", space: str = "", name: str = ""
) -> FoundStates:
    """The target states of the anchors `texts` at `path`. Arguments by name override the file's own values.

    Raises:
        SafetySteeringError: the file or folder is missing or not usable, or holds none of the anchors.
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
    chosen_point = hook_point or next(iter(source.hook_points))
    if not hook_point and len(source.hook_points) > 1:
        raise SafetySteeringError(
            f"{path.name} holds {len(source.hook_points)} hook points; choose one by --hook-point: "
            f"{', '.join(list(source.hook_points)[:6])}."
        )
    states = merged_bins(activations.read(chosen_point), 1)
    # a captured row's id ends in its text's hash; the unsafe rows of a folder are not looked at
    by_hash = {row.id.rpartition("/")[2]: number for number, row in enumerate(activations.rows()) if row.label == SAFE}
    pairs = [(i, by_hash[short]) for i, text in enumerate(texts) if (short := _short_hash(text)) in by_hash]
    if not pairs:
        raise SafetySteeringError(
            f"{path.name} holds none of the anchors. Capture the vector's own anchors on the model."
        )
    chosen = [number for _, number in pairs]
    side = Side(
        hook_point=chosen_point,
        space=source.hook_points[chosen_point][0],
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
            f"{path.name} was not found. Give a file of anchor states or a folder of activations."
        ) from error
    except (SafetensorError, OSError, ValueError, AttributeError, TypeError) as error:
        raise SafetySteeringError(
            f"{path.name} is not a file of anchor states: {error}. Expected safetensors with 'activations' (n, D)."
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
