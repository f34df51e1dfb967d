"""Which names of ComfyUI's core the pack uses, and which of them a ComfyUI lacks.

The names are read off the pack's own imports and the attributes it takes of what it imports; the signatures that it
counts on are written down here.

    python tools/start.py core_names  # of the ComfyUI in use (COMFYUI_PATH); exit code 1: a name vanished
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from comfy_tree import REPO_ROOT, comfyui_on_path, comfyui_path, tree_version

PACKAGES = ("bridge", "nodes", "commands", "guardrail", "safety_steering")
# function -> its first parameters, in the order in which core passes them or we do
SIGNATURES = {
    "comfy.model_base.BaseModel.apply_model": (
        "self",
        "x",
        "t",
        "c_concat",
        "c_crossattn",
        "control",
        "transformer_options",
    ),
    "comfy.samplers.calc_cond_batch": ("model", "conds", "x_in", "timestep", "model_options"),
    "comfy.samplers.CFGGuider.outer_sample": ("self", "noise", "latent_image", "sampler", "sigmas"),
    "comfy.sampler_helpers.prepare_model_patcher": ("model", "conds", "model_options"),
    "comfy.model_patcher.ModelPatcher.add_wrapper_with_key": ("self", "wrapper_type", "key", "wrapper"),
    "comfy.model_patcher.ModelPatcher.get_wrappers": ("self", "wrapper_type", "key"),
}


def pack_files() -> list[Path]:
    """The pack's Python files that run inside ComfyUI."""
    return [
        REPO_ROOT / "__init__.py",
        *(path for name in PACKAGES for path in sorted((REPO_ROOT / name).rglob("*.py"))),
    ]


def used_names(files: Iterable[Path], tree: Path) -> dict[str, set[str]]:
    """Dotted names of core -> files that use them."""
    used: dict[str, set[str]] = defaultdict(set)
    for path in files:
        for name in _names_in(ast.parse(path.read_text(encoding="utf-8"))):
            top = name.partition(".")[0]
            if (tree / top).is_dir() or (tree / f"{top}.py").is_file():
                used[name].add(path.relative_to(REPO_ROOT).as_posix() if path.is_relative_to(REPO_ROOT) else path.name)
    return used


def _names_in(module: ast.Module) -> set[str]:
    """Everything that absolute imports bind, and the attributes taken of it."""
    bound: dict[str, str] = {}
    names: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
                names.add(alias.name)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            for alias in node.names:
                bound[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                names.add(f"{node.module}.{alias.name}")
    for node in ast.walk(module):
        if isinstance(node, ast.Attribute) and (chain := _chain(node)) and chain[0] in bound:
            names.add(".".join([bound[chain[0]], *chain[1:]]))
    return names


def _chain(node: ast.expr) -> list[str]:
    if isinstance(node, ast.Name):
        return [node.id]
    inner = _chain(node.value) if isinstance(node, ast.Attribute) else []
    return [*inner, node.attr] if inner and isinstance(node, ast.Attribute) else []


def lookup(name: str) -> Any:
    """What a dotted name leads to, as far as modules and a class can tell: what an instance has is not looked at.

    Raises:
        ImportError, AttributeError: it leads nowhere.
    """
    at: Any = None
    parts = name.split(".")
    for index, part in enumerate(parts):
        if at is None or (isinstance(at, ModuleType) and not hasattr(at, part)):
            try:
                at = importlib.import_module(".".join(parts[: index + 1]))
            except ModuleNotFoundError as error:
                raise AttributeError(str(error)) from error
        elif isinstance(at, ModuleType):
            at = getattr(at, part)
        elif inspect.isclass(at):
            if not hasattr(at, part) and f".{part}" not in inspect.getsource(at):
                raise AttributeError(part)
            return getattr(at, part, None)
        else:
            return at
    return at


def vanished(used: Mapping[str, set[str]], version: str) -> list[str]:
    """One sentence for each name that core lacks, and for each function that takes other parameters."""
    complaints = []
    for name, files in sorted(used.items()):
        try:
            lookup(name)
        except (ImportError, AttributeError):
            complaints.append(f"ComfyUI {version} has no {name}, which {', '.join(sorted(files))} uses.")
    for name, expected in SIGNATURES.items():
        try:
            found = tuple(inspect.signature(lookup(name)).parameters)[: len(expected)]
        except (ImportError, AttributeError, TypeError):
            complaints.append(f"ComfyUI {version} has no function {name}, which the pack wraps or calls.")
            continue
        if found != expected:
            complaints.append(
                f"{name} of ComfyUI {version} takes ({', '.join(found)}), expected ({', '.join(expected)})."
            )
    return complaints


def missing_classes(class_names: Iterable[str], tree: Path) -> list[str]:
    """Model classes of the model map that a ComfyUI tree does not define."""
    source = "\n".join(path.read_text(encoding="utf-8") for path in (tree / "comfy" / "ldm").rglob("*.py"))
    defined = set(re.findall(r"^class (\w+)", source, flags=re.MULTILINE))
    return sorted(set(class_names) - defined)


def main() -> int:

    tree = comfyui_on_path()
    from safety_steering_pack.bridge.models.families import FAMILIES

    used = used_names(pack_files(), tree)
    complaints = vanished(used, tree_version(comfyui_path()))
    print("\n".join(complaints) or f"All {len(used)} names of core and {len(SIGNATURES)} signatures are there.")
    if missing := missing_classes((family.class_name for family in FAMILIES), tree):
        print(f"Families that this ComfyUI does not have: {', '.join(missing)}.")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
