"""Command line: `align` fits a benign alignment from states on disk, `transfer` carries a vector over by it."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..safety_steering.alignment.anchors import refuse_unsafe
from ..safety_steering.alignment.file import load_alignment, save_alignment
from ..safety_steering.alignment.fit import Side, fit_alignment
from ..safety_steering.alignment.report import report_alignment
from ..safety_steering.alignment_methods import METHODS
from ..safety_steering.alignment_settings import AlignmentSettings
from ..safety_steering.card import describe
from ..safety_steering.coverage import coverage
from ..safety_steering.errors import SafetySteeringError
from ..safety_steering.target_states import read_target_states
from ..safety_steering.vectors.file import load_vector, save_vector
from ..safety_steering.whitening import carry_over


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
            f"{Path(options.vector).name} is no portable vector with anchors. Use a bundled one, or one that extract "
            "made."
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
