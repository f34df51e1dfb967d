"""`results` on the command line: results files as one flat table, CSV or parquet."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..safety_steering.results import SUFFIXES, load, save


def add_results_command(commands: Any) -> None:
    """Add it to argparse's subparsers; it sets `run`, which takes the options and returns what is to be printed."""
    parser = commands.add_parser(
        "results",
        help="results files as one table for pandas: CSV or parquet",
        description="Makes one flat table of the JSON files that evaluate, calibrate, fit, extract and the demo write.",
    )
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="results.json, calibration.json, ...")
    parser.add_argument(
        "--out", type=Path, help=f"the table to write, {' or '.join(SUFFIXES)}; printed as CSV if not given"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing table")
    parser.set_defaults(run=_table)


def _table(options: argparse.Namespace) -> str:
    frame = load(*options.files)
    if options.out is None:
        text: str = frame.to_csv(index=False)
        return text.rstrip("\n")
    path = save(frame, options.out, overwrite=options.overwrite)
    return f"{path.name}: {len(frame)} rows, {len(frame.columns)} columns"
