"""`fit` on the command line: from a folder of activations to a vector file and its table."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..safety_steering.activations import Activations
from ..safety_steering.directions.fitting import LABELS, METHODS, TOKENS, FitSettings
from ..safety_steering.directions.methods import KERNELS
from ..safety_steering.directions.native import fit_vector
from ..safety_steering.files import write_result
from ..safety_steering.vectors.card import describe
from ..safety_steering.vectors.file import save_vector
from ..safety_steering.vectors.vector import DIFFERING
from .progress import progress_bar

HALVES, PERMUTATIONS = 20, 200


def add_fit_command(commands: Any) -> None:
    """Add it to argparse's subparsers; it sets `run`, which takes the options and returns what is to be printed."""
    fit = commands.add_parser("fit", help="fit a safety vector on a folder of activations")
    fit.add_argument("activations", type=Path, help="the folder, as Capture Activations wrote it")
    fit.add_argument("vector", type=Path, help="the file to write, *.safetensors; its table goes beside it, *.json")
    fit.add_argument("--method", choices=METHODS, default=METHODS[0], help=f"default {METHODS[0]}")
    fit.add_argument("--labels", choices=LABELS, default="categories", help="of supervised_pca")
    fit.add_argument("--kernel", choices=KERNELS, default="delta", help="of supervised_pca")
    fit.add_argument("--components", type=int, default=0, help="of supervised_pca; 0 keeps all")
    fit.add_argument("--shrinkage", type=float, default=1.0, help="of shrunk_lda")
    fit.add_argument("--inverse-penalty", type=float, default=1.0, help="of logistic_probe")
    fit.add_argument("--standardise", action="store_true", help="give every channel the same weight")
    fit.add_argument("--regress-length", action="store_true", help="take out what comes from a prompt's length")
    fit.add_argument("--tokens", choices=TOKENS, default=DIFFERING, help=f"what is fitted on, default {DIFFERING}")
    fit.add_argument("--bins", type=int, default=0, help="directions for how many noise levels; 0 as captured")
    fit.add_argument("--categories", default="", help="which to fit, with commas; all of them if not given")
    fit.add_argument("--seed", type=int, default=0, help="of the evidence: halves and permutations")
    fit.add_argument("--overwrite", action="store_true", help="replace an existing file")
    fit.set_defaults(run=_fit)


def _fit(options: argparse.Namespace) -> str:
    names = ("method", "labels", "kernel", "components", "shrinkage", "inverse_penalty", "standardise")
    settings = FitSettings(
        **{name: getattr(options, name) for name in (*names, "regress_length", "seed", "tokens")},
        halves=HALVES,
        permutations=PERMUTATIONS,
    )
    with progress_bar("hook points") as show:
        fitted = fit_vector(
            Activations.open(options.activations),
            settings,
            categories=[name.strip() for name in options.categories.split(",") if name.strip()],
            bins=options.bins,
            progress=show,
        )
    path = save_vector(fitted.vector, options.vector, overwrite=options.overwrite)
    command = f"python -m safety_steering fit {options.activations.name} {path.name} --method {options.method}"
    write_result(path.with_suffix(".json"), command, [options.seed], fitted.table)
    lines = [f"{'hook point':28}{'category':16}{'sigma':>14}{'AUC':>8}{'tokens':>8}{'halves':>8}{'p':>8}"]
    for row in fitted.table:
        sigma = "{:.2f}-{:.2f}".format(*row["sigma"])
        numbers = "".join(f"{_number(row[name]):>8}" for name in ("auc", "token_auc", "halves_cosine", "p_value"))
        lines.append(f"{row['hook_point'][:27]:28}{row['category'][:15]:16}{sigma:>14}{numbers}")
    return "\n".join([*lines, "", path.name, describe(fitted.vector)])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
