"""Where ComfyUI lies on this machine. Standard library only: the installer runs before anything is installed.

``COMFYUI_PATH`` names a tree the user already has; else it is the release the installer unpacks into the cache.
``COMFYUI_PYTHON`` names the interpreter that runs it; else it is this checkout's ``.venv``.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

COMFYUI_VERSION = "0.30.0"
REPO_ROOT = Path(__file__).resolve().parents[1]
VENV = REPO_ROOT / ".venv"


class ComfyTreeError(Exception):
    """No usable ComfyUI; the message says what was looked at and what to do."""


def cached_tree(version: str = COMFYUI_VERSION) -> Path:
    """Where the installer keeps its own ComfyUI: outside the checkout, shared by every clone."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "safety-steering" / f"ComfyUI-{version}"


def tree_version(tree: Path) -> str:
    """The version that a ComfyUI tree states. Raises ComfyTreeError when ``tree`` is no ComfyUI."""
    for required in ("main.py", "comfyui_version.py"):
        if not (tree / required).is_file():
            raise ComfyTreeError(f"{tree} is not a ComfyUI folder: it has no {required}.")
    text = (tree / "comfyui_version.py").read_text(encoding="utf-8")
    found = re.search(r'__version__\s*=\s*"([^"]+)"', text)
    if not found:
        raise ComfyTreeError(f'{tree / "comfyui_version.py"} states no __version__ = "...".')
    return found.group(1)


def comfyui_path() -> Path:
    """The ComfyUI tree in use. Raises ComfyTreeError when COMFYUI_PATH is wrong or nothing is installed yet."""
    chosen = os.environ.get("COMFYUI_PATH")
    tree = Path(chosen).expanduser().resolve() if chosen else cached_tree()
    if not chosen and not tree.is_dir():
        raise ComfyTreeError(f"No ComfyUI at {tree}. Run `make install`, or set COMFYUI_PATH to one you have.")
    try:
        tree_version(tree)
    except ComfyTreeError as error:
        source = "COMFYUI_PATH is wrong" if chosen else f"The cache is damaged (delete {tree})"
        raise ComfyTreeError(f"{source}: {error}") from error
    return tree


def comfyui_python() -> Path:
    """The interpreter that runs ComfyUI, the demo and the tests."""
    chosen = os.environ.get("COMFYUI_PYTHON")
    return Path(chosen).expanduser() if chosen else VENV / "bin" / "python"


def comfyui_on_path(*arguments: str) -> Path:
    """Make ComfyUI importable in this process, on the CPU, as if started with ``arguments``; returns its tree.

    ComfyUI reads its command line once, when ``comfy.cli_args`` is first imported, and only if told to.
    """
    tree = comfyui_path()
    if str(tree) not in sys.path:
        sys.path.insert(0, str(tree))
    import comfy.options

    own_arguments = sys.argv
    comfy.options.enable_args_parsing()
    sys.argv = ["main.py", "--cpu", "--disable-api-nodes", *arguments]
    try:
        import comfy.cli_args
        import utils.install_util  # noqa: F401  as main.py does: older trees later put comfy/, with its own utils, in front
    finally:
        sys.argv = own_arguments
        comfy.options.enable_args_parsing(False)
    return tree
