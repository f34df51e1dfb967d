"""The command line: `python -m safety_steering` in the pack's folder, `safety-steering` after `pip install .`."""

from __future__ import annotations

import importlib
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

PACK = "safety_steering_pack"


def main() -> int:
    """Run the command line; returns the exit code.

    The pack's packages import one another relatively, and the pack's folder may have any name, so the pack is
    registered under a name of its own, without its `__init__`, which needs ComfyUI. Installed by pip, what lies beside
    this package in the pack's folder lies in its folder `pack`.
    """
    here = Path(__file__).resolve().parent
    installed = here / "pack"
    folders = [installed, here.parent] if installed.is_dir() else [here.parent]
    spec = spec_from_file_location(
        PACK, here.parent / "__init__.py", submodule_search_locations=[str(folder) for folder in folders]
    )
    assert spec is not None
    sys.modules[PACK] = module_from_spec(spec)
    try:
        commands = importlib.import_module(f"{PACK}.commands.main")
    except ModuleNotFoundError as error:
        print(
            f"This Python has no '{error.name}'. Run the command with the Python that runs ComfyUI.",
            file=sys.stderr,
        )
        return 1
    code: int = commands.main()
    return code


if __name__ == "__main__":
    sys.exit(main())
