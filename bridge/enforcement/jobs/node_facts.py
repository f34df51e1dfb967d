"""What a node class is: read off the class once, since a graph names it many times."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import folder_paths

import nodes as core_nodes

CORE = Path(folder_paths.__file__).resolve().parent
CORE_FOLDERS = (CORE, CORE / "comfy_extras", CORE / "comfy_api_nodes")


@dataclass(frozen=True)
class NodeFacts:
    """names: under which it is registered. takes: input name -> type; texts: inputs for text of several lines.

    gives: types of its results. is_core: ComfyUI's own, and not a pack's.
    """

    names: frozenset[str]
    takes: Mapping[str, str]
    texts: frozenset[str]
    gives: tuple[str, ...]
    is_output: bool
    is_api: bool
    is_core: bool

    @property
    def name(self) -> str:
        """One of its names."""
        return min(self.names, default="")


@cache
def facts_of(node_class: Any) -> NodeFacts:
    """The facts of a node class; the class may be registered under several names."""
    inputs = node_class.INPUT_TYPES()
    declared = {**inputs.get("required", {}), **inputs.get("optional", {})}
    options = {name: spec[1] for name, spec in declared.items() if len(spec) > 1 and isinstance(spec[1], dict)}
    return NodeFacts(
        names=frozenset(name for name, known in core_nodes.NODE_CLASS_MAPPINGS.items() if known is node_class),
        takes={name: spec[0] if isinstance(spec[0], str) else "COMBO" for name, spec in declared.items()},
        texts=frozenset(name for name, option in options.items() if option.get("multiline")),
        gives=tuple(str(kind) for kind in node_class.RETURN_TYPES or ()),
        is_output=bool(getattr(node_class, "OUTPUT_NODE", False)),
        is_api=bool(getattr(node_class, "API_NODE", False)),
        is_core=_is_core(node_class),
    )


def _is_core(node_class: Any) -> bool:
    """Whether the file that defines the class is ComfyUI's own, whatever the class says of itself."""
    file = getattr(sys.modules.get(node_class.__module__), "__file__", None)
    return file is not None and Path(file).resolve().parent in CORE_FOLDERS
