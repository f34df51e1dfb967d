"""A workflow as the prompt that the frontend would send, without a browser."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from workflow_builder.graph import FlatGraph, Node
from workflow_builder.nodes import WIDGETS

Prompt = dict[str, dict[str, Any]]


def as_prompt(graph: FlatGraph, definitions: Mapping[str, Any]) -> Prompt:
    """The API prompt of a flat graph. definitions: node id -> definition, as /object_info gives it.

    Raises:
        ValueError: a node has other widgets than its definition.
    """
    prompt: Prompt = {}
    for id_, node in graph.nodes.items():
        links = {link.input: [str(link.origin[0]), link.origin[1]] for link in graph.links if link.target == id_}
        widgets = dict(_named(node, definitions[node["type"]]))
        prompt[str(id_)] = {"class_type": node["type"], "inputs": widgets | links}
    return prompt


def _named(node: Node, definition: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """A node's widgets by name. What happens to a seed after a run is a value of its own that is not sent."""
    values = list(node["widgets_values"])
    for part in ("required", "optional"):
        for name, (type_, *about) in definition["input"].get(part, {}).items():
            if not (isinstance(type_, list) or type_ in WIDGETS):
                continue
            if not values:
                if part == "required" and "default" not in (about[0] if about else {}):
                    raise ValueError(f"{node['type']} has no value for {name}.")
                continue  # a widget that is newer than the workflow
            yield name, values.pop(0)
            if about and about[0].get("control_after_generate"):
                values.pop(0)
