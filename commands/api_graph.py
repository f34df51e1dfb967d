"""ComfyUI graphs in API format, `{node id: {"class_type", "inputs"}}`: made of stock nodes, or read and changed."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..safety_steering.errors import SafetySteeringError
from ..safety_steering.files import unicode_encoding

PREFIX = "SafetySteering_"
LINKED = ("MODEL", "CLIP", "VAE", "LATENT", "CONDITIONING", "IMAGE")
Graph = dict[str, dict[str, Any]]
Link = list[str | int]


@dataclass(frozen=True)
class NodeRef:
    """A node of a graph; `ref[i]` links to its i-th output."""

    id: str

    def __getitem__(self, output: int) -> Link:
        return [self.id, output]


@dataclass
class PromptGraph:
    """A graph in the making: `prompt` is what the server takes."""

    prompt: Graph = field(default_factory=dict)

    def add(self, class_type: str, inputs: Mapping[str, Any] | None = None, **more_inputs: Any) -> NodeRef:
        """Add a node. `inputs` takes names that are no Python identifiers, such as `gate.threshold`."""
        node = NodeRef(str(len(self.prompt) + 1))
        self.prompt[node.id] = {"class_type": class_type, "inputs": {**(inputs or {}), **more_inputs}}
        return node


def with_defaults(graph: Graph, definitions: Mapping[str, Any]) -> Graph:
    """The graph with the server's default for each required widget that it lacks. definitions: /object_info.

    Raises:
        SafetySteeringError: the server does not know a node.
    """
    filled = {}
    for node_id, node in graph.items():
        class_type = node["class_type"]
        if class_type not in definitions:
            raise SafetySteeringError(
                f"The server does not know the node {class_type}. Install or update Safety Steering there, and "
                "restart it."
            )
        defaults = _defaults(definitions[class_type]["input"], node["inputs"])
        filled[node_id] = {**node, "inputs": defaults | node["inputs"]}
    return filled


def _defaults(inputs: Mapping[str, Any], given: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Default of every required widget. A choice that brings widgets of its own (`judge.threshold`) brings theirs."""
    found: dict[str, Any] = {}
    for key, (kind, *rest) in inputs.get("required", {}).items():
        name, options = prefix + key, rest[0] if rest else {}
        choices = kind if isinstance(kind, list) else options.get("options", [])
        groups = {choice["key"]: choice["inputs"] for choice in choices if isinstance(choice, Mapping)}
        if "default" in options:
            found[name] = options["default"]
        elif choices:
            found[name] = next(iter(groups or choices))
        if groups:
            found |= _defaults(groups.get(given.get(name, found[name]), {}), given, f"{name}.")
    return found


def read_graph(path: Path) -> Graph:
    """A graph that was exported from ComfyUI with Export (API).

    Raises:
        SafetySteeringError: the file is missing, or is not such a graph.
    """
    try:
        content = path.read_bytes()
        graph = json.loads(content.decode(unicode_encoding(content)))
    except (OSError, ValueError) as error:
        raise SafetySteeringError(f"{path.name} cannot be read as JSON: {error}.") from error
    nodes = graph.values() if isinstance(graph, dict) else []
    if not nodes or not all(isinstance(node, dict) and "class_type" in node and "inputs" in node for node in nodes):
        raise SafetySteeringError(
            f"{path.name} is not a graph in API format. In ComfyUI choose Workflow, Export (API), and give that file."
        )
    return dict(graph)


def node_of(graph: Graph, class_type: str) -> str:
    """The id of the only node of a class; SafetySteeringError if there is none, or there are several."""
    found = [node_id for node_id, node in graph.items() if node["class_type"] == class_type]
    if len(found) != 1:
        raise SafetySteeringError(f"The graph has {len(found)} nodes {class_type}; exactly one is needed.")
    return found[0]


def with_widgets(graph: Graph, changes: Sequence[str]) -> Graph:
    """The graph with widgets changed, each as `NODE.WIDGET=VALUE`; NODE is a class (this pack's without its prefix) or
    an id. Numbers stay texts, which the server reads by the widget's type.

    Raises:
        SafetySteeringError: a change does not read like that, or there is no such node.
    """
    changed = copy.deepcopy(graph)
    for change in changes:
        target, equals, value = change.partition("=")
        name, dot, widget = target.strip().partition(".")
        nodes = [
            node
            for node_id, node in changed.items()
            if name and name in (node_id, node["class_type"], node["class_type"].removeprefix(PREFIX))
        ]
        if not (equals and dot and widget and nodes):
            known = ", ".join(sorted({node["class_type"].removeprefix(PREFIX) for node in graph.values()}))
            raise SafetySteeringError(
                f"'{change[:80]}' changes nothing. Write it like NODE.WIDGET=VALUE; the graph's nodes are: {known}."
            )
        for node in nodes:
            node["inputs"][widget] = {"true": True, "false": False}.get(value.strip(), value.strip())
    return changed
