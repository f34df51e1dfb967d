"""This pack's nodes in the frontend's format, with the sockets that their schemas declare.

.venv/bin/python tools/start.py workflow_builder.nodes    # prints the definitions of all nodes as JSON
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import start

from workflow_builder.graph import FlatGraph, Node, Socket

PREFIX = "SafetySteering_"
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COMFY_DYNAMICCOMBO_V3")
OPTIONAL = 7  # how the frontend draws a socket that may stay empty
COLOURS = {"color": "#233", "bgcolor": "#355"}


@lru_cache(maxsize=1)
def definitions() -> dict[str, Any]:
    """Node id -> definition, as /object_info gives it.

    Read in a process of its own, because ComfyUI reads its command line once per process.
    """
    done = subprocess.run(start.command(__name__), capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def safety_node(kind: str, widgets: Sequence[Any] = (), title: str = "") -> Node:
    """A node without links. kind: its node id without the pack's prefix. widgets: all values, in the schema's order."""
    definition = definitions()[PREFIX + kind]
    outputs = zip(definition["output_name"], definition["output"], strict=True)
    return {
        "type": PREFIX + kind,
        "mode": 0,
        "inputs": list(_sockets(definition["input"])),
        "outputs": [{"name": name, "type": type_} for name, type_ in outputs],
        "properties": {},
        "widgets_values": list(widgets),
        **COLOURS,
        **({"title": title} if title else {}),
    }


def _sockets(declared: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for part in ("required", "optional"):
        for name, (type_, *_) in declared.get(part, {}).items():
            if isinstance(type_, str) and type_ not in WIDGETS:
                yield {"name": name, "type": type_, **({"shape": OPTIONAL} if part == "optional" else {})}


def add(graph: FlatGraph, kind: str, widgets: Sequence[Any] = (), title: str = "", **links: Socket) -> int:
    """Add a `safety_node` to a graph and connect its inputs; returns its id."""
    return graph.add(safety_node(kind, widgets, title), **links)


def main() -> None:
    from comfy_tree import comfyui_on_path

    import locales

    comfyui_on_path()
    print(json.dumps(locales.definitions()))


if __name__ == "__main__":
    main()
