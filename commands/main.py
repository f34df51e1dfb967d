"""Command line, from the pack's folder: `python -m safety_steering --help` lists what it can do."""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

from ..bridge.models.checkpoint import describe_unknown, inspect_checkpoint
from ..bridge.models.families import FAMILIES
from ..safety_steering.errors import SafetySteeringError
from ..safety_steering.vectors.card import describe
from ..safety_steering.vectors.file import is_vector, load_vector
from .align import add_align_commands
from .evaluate import add_command as add_evaluate
from .extract import add_extract_command
from .fit import add_fit_command
from .guardrail import add_commands as add_guardrail
from .prompts import add_prompts_command
from .results import add_results_command
from .server import add_server_commands


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 1 after an error, explained on stderr, or 130 after Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may lack a character: it is shown as an escape
            stream.reconfigure(errors="backslashreplace")
    parser = argparse.ArgumentParser(prog="safety_steering", description="Safety vectors on the command line.")
    commands = parser.add_subparsers(dest="command", required=True)
    inspect = commands.add_parser("inspect", help="print a safety vector's card, or what model a checkpoint holds")
    inspect.add_argument(
        "file", help="a safety vector or a diffusion model, *.safetensors; of a model only the header is read"
    )
    inspect.set_defaults(run=_inspect)
    add_prompts_command(commands)
    add_evaluate(commands)
    add_extract_command(commands)
    add_fit_command(commands)
    add_align_commands(commands)
    add_results_command(commands)
    add_server_commands(commands)
    add_guardrail(commands)
    options = parser.parse_args(arguments)
    try:
        print(options.run(options))
    except FileNotFoundError as error:
        print(f"There is no file or folder {error.filename}. Check its name and where you are.", file=sys.stderr)
        return 1
    except (SafetySteeringError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    return 0


def _inspect(options: argparse.Namespace) -> str:
    if not Path(options.file).is_dir():
        if model := inspect_checkpoint(options.file, FAMILIES):
            return model
        if is_vector(options.file):
            return describe(load_vector(options.file))
    raise SafetySteeringError(describe_unknown(options.file))
