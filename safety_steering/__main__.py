"""Command line, from the pack's folder: `python -m safety_steering --help` lists what it can do."""

from __future__ import annotations

import argparse
import importlib
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from .align_commands import add_align_commands
from .card import describe
from .checkpoint import describe_unknown, inspect_checkpoint
from .errors import SafetySteeringError
from .evaluate_command import add_command as add_evaluate
from .extract_command import add_extract_command
from .fit_command import add_fit_command
from .server_commands import add_server_commands
from .vector_file import is_vector, load_vector

PACK = "safety_steering_pack"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, or 1 after an error that was explained on stderr."""
    parser = argparse.ArgumentParser(prog="safety_steering", description="Safety vectors on the command line.")
    commands = parser.add_subparsers(dest="command", required=True)
    inspect = commands.add_parser("inspect", help="print a safety vector's card, or what model a checkpoint holds")
    inspect.add_argument(
        "file", help="a safety vector or a diffusion model, *.safetensors; of a model only the header is read"
    )
    inspect.set_defaults(run=_inspect)
    add_evaluate(commands)
    add_extract_command(commands)
    add_fit_command(commands)
    add_align_commands(commands)
    add_server_commands(commands)
    _sibling("guardrail.commands").add_commands(commands)
    options = parser.parse_args(arguments)
    try:
        print(options.run(options))
    except FileNotFoundError as error:
        print(f"There is no file or folder {error.filename}. Check its name and where you are.", file=sys.stderr)
        return 1
    except (SafetySteeringError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _inspect(options: argparse.Namespace) -> str:
    if not Path(options.file).is_dir():
        if model := inspect_checkpoint(options.file, _sibling("bridge.families").FAMILIES):
            return model
        if is_vector(options.file):
            return describe(load_vector(options.file))
    raise SafetySteeringError(describe_unknown(options.file))


def _sibling(name: str) -> ModuleType:
    """A module of another package of the pack. Those import one another relatively, so the pack must be a package.

    Run from the pack's folder it is none yet: this makes it one, without its `__init__` (which needs ComfyUI), and with
    the modules loaded so far in it, so that no class exists twice.
    """
    package = load_vector.__module__.rpartition(".")[0]
    parent = package.rpartition(".")[0]
    if not parent:
        parent, root = PACK, Path(__file__).resolve().parents[1]
        spec = spec_from_file_location(PACK, root / "__init__.py", submodule_search_locations=[str(root)])
        assert spec is not None
        sys.modules[PACK] = module_from_spec(spec)
        loaded = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == package}
        sys.modules.update({f"{PACK}.{name}": module for name, module in loaded.items()})
    return importlib.import_module(f"{parent}.{name}")


if __name__ == "__main__":
    sys.exit(main())
