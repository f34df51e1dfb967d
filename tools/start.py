"""The one way to start a script of this repository: everything it may import is found, and the pack is a package.

    .venv/bin/python tools/start.py small_world.native.compare --choose
    .venv/bin/python tools/start.py overhead --quick

The folders below are on the path, so their modules have plain names; the pack is ``safety_steering_pack``.
"""

from __future__ import annotations

import io
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

import pack

REPO_ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("tools", "demo", "bench", "tests/helpers")


def command(module: str, *arguments: str) -> list[str]:
    """The command line that runs a module in a process of its own."""
    return [sys.executable, str(Path(__file__).resolve()), module, *arguments]


def prepare() -> None:
    """Put `FOLDERS` on the path and register the pack. What is there already stays as it is."""
    sys.path += [path for path in (str(REPO_ROOT / folder) for folder in FOLDERS) if path not in sys.path]
    pack.register()


def is_there(module: str) -> bool:
    """Whether a module of this name can be run. Packages of its path are imported, the module itself is not."""
    if not all(part.isidentifier() for part in module.split(".")):
        return False
    try:
        spec = find_spec(module)
        return spec is not None and (not spec.submodule_search_locations or find_spec(f"{module}.__main__") is not None)
    except ModuleNotFoundError as error:
        if not module.startswith(error.name or ""):  # a package was found and itself lacks something
            raise
        return False


def main() -> None:
    prepare()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may lack a character: it is shown as an escape
            stream.reconfigure(errors="backslashreplace")
    if len(sys.argv) < 2 or not is_there(sys.argv[1]):
        what = f"There is no module {sys.argv[1]} to run" if len(sys.argv) > 1 else "No module is named"
        sys.exit(f"{what}. Name one of {', '.join(FOLDERS)}, for example small_world.build.")
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
