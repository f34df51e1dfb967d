"""This pack as a Python package outside ComfyUI: one module name, one copy of every class in a process.

The repo root is a package whose folder name is the user's choice, so it has no import name of its own. Tests and demo
call it ``safety_steering_pack``. Registering it does not run its ``__init__.py`` (which needs ComfyUI), so

    import pack; pack.register()
    from safety_steering_pack.safety_steering.vectors.vector import SafetyVector

works without ComfyUI, and ``pack.load()`` later runs ``__init__.py`` in that same module, once ComfyUI is importable.
The repo root itself never goes on ``sys.path``: its ``nodes/`` would shadow ComfyUI's ``nodes``.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

REPO_ROOT = Path(__file__).resolve().parents[1]
NAME = "safety_steering_pack"


def register() -> ModuleType:
    """Make ``safety_steering_pack`` and its submodules importable; returns the (not executed) package module."""
    if NAME not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            NAME, REPO_ROOT / "__init__.py", submodule_search_locations=[str(REPO_ROOT)]
        )
        assert spec is not None
        sys.modules[NAME] = importlib.util.module_from_spec(spec)
    return sys.modules[NAME]


def load() -> ModuleType:
    """Run the pack's ``__init__.py`` as ComfyUI's node loader does; ComfyUI must be importable."""
    module = register()
    if not hasattr(module, "comfy_entrypoint"):
        assert module.__spec__ is not None
        assert module.__spec__.loader is not None
        module.__spec__.loader.exec_module(module)
    return module
