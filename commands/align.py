"""Command line: `align` fits a benign alignment from states on disk, `transfer` carries a vector over by it.

The target's states of the anchors are a folder of activations, or a safetensors file with `activations` (n, D), the
pooled states, and optionally `token` (n, D), one token's of each anchor. The file's metadata may have `hook_point`,
`space`, `name`, `family`, `weight_fingerprint`, `block_counts` (JSON) and `texts` (JSON); without texts row i is the
vector's anchor i.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ..safety_steering.activations import SAFE, Activations
from ..safety_steering.alignment.alignment import AnchorStates, Side
from ..safety_steering.alignment.file import load_alignment, save_alignment
from ..safety_steering.alignment.fit import TargetStates, fit_checked
from ..safety_steering.alignment.maps import METHODS, AlignmentSettings
from ..safety_steering.alignment.report import report_alignment
from ..safety_steering.alignment.sharpen import SHRINKAGE
from ..safety_steering.alignment.transfer import carry_over
from ..safety_steering.directions.merging import merged_bins
from ..safety_steering.errors import SafetySteeringError
from ..safety_steering.vectors.card import describe
from ..safety_steering.vectors.file import load_vector, save_vector


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
    carry.add_argument(
        "--sharpen", type=float, default=SHRINKAGE, help="shrinkage of the sharpening; 0 switches it off"
    )
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
    target, rows = read_target_states(
        Path(options.states), anchors.texts, hook_point=options.hook_point, space=options.space, name=options.name
    )
    texts = [anchors.texts[row] for row in rows]
    alignment = fit_checked(vector, anchors.states[rows], texts, lambda: target, settings)
    path = save_alignment(alignment, options.alignment, overwrite=options.overwrite)
    return f"{report_alignment(alignment, vector)}\nwritten: {path.name}"


def _transfer(options: argparse.Namespace) -> str:
    carried = carry_over(load_vector(options.vector), load_alignment(options.alignment), options.sharpen)
    path = save_vector(carried, options.transferred, overwrite=options.overwrite)
    return f"{describe(carried)}\nwritten: {path.name}"


def read_target_states(
    path: Path, texts: Sequence[str], *, hook_point: str = "", space: str = "", name: str = ""
) -> tuple[TargetStates, list[int]]:
    """The target's states at `path` of the anchors `texts`, and which of the anchors these are.

    hook_point, space, name: replace what the files say, if they are not empty.

    Raises:
        SafetySteeringError: there are no usable states, or their hook point or space is unknown.
    """
    states, rows, facts = _from_folder(path, texts, hook_point) if path.is_dir() else _from_file(path, texts)
    given = {"hook_point": hook_point, "space": space, "name": name}
    facts |= {key: value for key, value in given.items() if value}
    if not facts["hook_point"] or not facts["space"]:
        raise SafetySteeringError(
            f"{path.name} does not say which states it holds. Give --hook-point (such as conditioning) and --space "
            "(such as umt5xxl.last)."
        )
    return TargetStates(states, Side(**facts)), rows


def _from_folder(path: Path, texts: Sequence[str], hook_point: str) -> tuple[AnchorStates, list[int], dict[str, Any]]:
    activations = Activations.open(path)
    source = activations.source
    if not hook_point and len(source.hook_points) > 1:
        raise SafetySteeringError(
            f"{path.name} holds {len(source.hook_points)} hook points; choose one by --hook-point: "
            f"{', '.join(list(source.hook_points)[:6])}."
        )
    chosen = hook_point or next(iter(source.hook_points))
    states = merged_bins(activations.read(chosen), 1)
    # a captured row's id ends in its text's hash; the unsafe rows of a folder are not read
    by_hash = {row.id.rpartition("/")[2]: number for number, row in enumerate(activations.rows()) if row.label == SAFE}
    pairs = [(i, by_hash[short]) for i, text in enumerate(texts) if (short := _short_hash(text)) in by_hash]
    if not pairs:
        raise SafetySteeringError(
            f"{path.name} holds none of the anchors. Capture the vector's own anchors on the model."
        )
    numbers = [number for _, number in pairs]
    facts = {
        "hook_point": chosen,
        "space": source.hook_points[chosen][0],
        "name": source.model_name,
        "family": source.family,
        "weight_fingerprint": source.weight_fingerprint,
        "block_counts": source.block_counts,
    }
    return AnchorStates(states.pooled[numbers, 0], states.token[numbers, 0]), [i for i, _ in pairs], facts


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _from_file(path: Path, texts: Sequence[str]) -> tuple[AnchorStates, list[int], dict[str, Any]]:
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
    names = ("hook_point", "space", "name", "family", "weight_fingerprint")
    facts: dict[str, Any] = {**{key: about.get(key, "") for key in names}, "block_counts": counts}
    return AnchorStates(pooled[chosen], token[chosen]), [i for i, _ in pairs], facts
