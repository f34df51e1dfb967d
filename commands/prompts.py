"""`prompts` on the command line: what Load Safety Prompts' preview says of a file, before anything is captured."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..safety_steering.prompts.prompt_set import describe_prompts
from ..safety_steering.prompts.selection import Selection, load_selected

EXAMPLES = 2


def add_prompts_command(commands: Any) -> None:
    """Add it to argparse's subparsers; it sets `run`, which takes the options and returns what is to be printed."""
    parser = commands.add_parser(
        "prompts",
        help="preview a prompt file: rows, columns, categories, splits",
        description="Reads a prompt file as Load Safety Prompts does, and says how: rows read and left out, which "
        "column became what, counts per category and split, lengths, and the first rows.",
    )
    parser.add_argument(
        "file", type=Path, help="parquet, csv, tsv, jsonl, json or txt, also as .gz; or a dataset's folder"
    )
    parser.add_argument("--columns", default="", help="which column is what: unsafe=bad_text,safe=good_text")
    parser.add_argument("--unpaired", choices=("unsafe", "safe"), default="", help="what prompts without a label are")
    parser.add_argument("--categories", default="", help="which to keep, with commas; all of them if not given")
    parser.add_argument("--limit", type=int, default=0, help="the most rows, evenly over the categories; 0 for all")
    parser.add_argument("--train", type=float, default=0.6, help="share that is fitted on, if the file has no splits")
    parser.add_argument("--validation", type=float, default=0.2, help="share that settings are chosen on")
    parser.add_argument("--seed", type=int, default=0, help="of the split")
    parser.add_argument("--examples", type=int, default=EXAMPLES, help=f"rows shown a category, default {EXAMPLES}")
    parser.set_defaults(run=_preview)


def _preview(options: argparse.Namespace) -> str:
    selection = Selection(**{field.name: getattr(options, field.name) for field in fields(Selection)})
    return describe_prompts(load_selected(options.file, selection), options.examples)
