"""Command line: `python -m safety_steering inspect FILE` prints a vector's card."""

from __future__ import annotations

import argparse
import sys

from .card import describe
from .errors import SafetySteeringError
from .vector_file import load_vector


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, or 1 after an error that was explained on stderr."""
    parser = argparse.ArgumentParser(prog="safety_steering", description="Safety vectors on the command line.")
    commands = parser.add_subparsers(dest="command", required=True)
    inspect = commands.add_parser("inspect", help="print a safety vector's card")
    inspect.add_argument("file", help="a safety vector, *.safetensors")
    options = parser.parse_args(arguments)
    try:
        print(describe(load_vector(options.file)))
    except SafetySteeringError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
