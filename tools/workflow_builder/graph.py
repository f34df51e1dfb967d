"""A workflow template of ComfyUI as one flat graph: subgraphs opened, switches set, notes and detours left out.

The templates come with the server's own requirements (package `TEMPLATES`).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import resources
from importlib.metadata import version
from typing import Any

TEMPLATES = "comfyui-workflow-templates-json"
BYPASSED = 4
SUBGRAPH_INPUT, SUBGRAPH_OUTPUT = -10, -20
NOTES = ("MarkdownNote", "Note")
RESULTS = ("SaveVideo", "SaveImage")
SEED_CONTROLS = ("randomize", "increment", "decrement")

Socket = tuple[int, int]  # node id, number of its output
Node = dict[str, Any]


@dataclass(frozen=True)
class Link:
    """From an output of a node to a named input of another; `type` is that of the output."""

    origin: Socket
    target: int
    input: str
    type: str


class TemplateError(Exception):
    """The template is not what the recipe of a workflow expects."""


class FlatGraph:
    """Nodes in the frontend's format, by id, and the links between them."""

    def __init__(self, nodes: Iterable[Node], links: Iterable[Link]) -> None:
        self.nodes = {node["id"]: node for node in nodes}
        self.links = list(links)

    def source(self, target: int, name: str) -> Socket | None:
        """What feeds an input, None if nothing does."""
        return next((link.origin for link in self.links if (link.target, link.input) == (target, name)), None)

    def connect(self, origin: Socket, target: int, name: str) -> None:
        """Feed an input; what fed it before is unplugged."""
        self.links = [link for link in self.links if (link.target, link.input) != (target, name)]
        self.links.append(Link(origin, target, name, self.nodes[origin[0]]["outputs"][origin[1]]["type"]))

    def add(self, node: Node, **links: Socket) -> int:
        """Add a node and feed its inputs; returns its id."""
        id_ = max(0, *self.nodes) + 1  # the borders of a subgraph have ids below 0
        self.nodes[id_] = {**node, "id": id_}
        for name, origin in links.items():
            self.connect(origin, id_, name)
        return id_

    def remove(self, node: int, replacement: Callable[[int], Socket | None] = lambda output: None) -> None:
        """Take a node out; whoever read its output n reads `replacement(n)` from now on, or nothing."""
        readers = [link for link in self.links if link.origin[0] == node]
        instead = {link: replacement(link.origin[1]) for link in readers}
        self.links = [link for link in self.links if node not in (link.origin[0], link.target)]
        for link, origin in instead.items():
            if origin is not None:
                self.connect(origin, link.target, link.input)
        del self.nodes[node]


def every_node(workflow: dict[str, Any]) -> list[Node]:
    """A workflow's nodes and those inside its subgraphs."""
    inside = workflow.get("definitions", {}).get("subgraphs", [])
    return [*workflow["nodes"], *(node for subgraph in inside for node in subgraph["nodes"])]


def templates_version() -> str:
    """Package and version of the templates that are here."""
    return f"{TEMPLATES} {version(TEMPLATES)}"


def load_template(name: str) -> dict[str, Any]:
    """A template's JSON as ComfyUI ships it."""
    folder = resources.files("comfyui_workflow_templates_json") / "templates"
    return dict(json.loads((folder / f"{name}.json").read_text(encoding="utf-8")))


def flatten(template: dict[str, Any], keep_bypassed: Iterable[int] = ()) -> FlatGraph:
    """A template as one flat graph of what it runs when opened and started as it is.

    Raises:
        TemplateError: a subgraph inside a subgraph, or two nodes with one id.
    """
    graph = _open_subgraphs(copy.deepcopy(template))
    for node in [node for node in graph.nodes.values() if node["type"] in NOTES]:
        graph.remove(node["id"])
    for node in list(graph.nodes.values()):
        if node["type"] == "Reroute" or (node["mode"] == BYPASSED and node["id"] not in keep_bypassed):
            graph.remove(node["id"], _same_type(graph, node))
    for node in [node for node in graph.nodes.values() if node["type"] == "ComfySwitchNode"]:
        chosen = graph.source(node["id"], "on_true" if _is_on(graph, node) else "on_false")
        graph.remove(node["id"], lambda output, chosen=chosen: chosen)
    _prune(graph, keep_bypassed)
    for node in graph.nodes.values():  # a comparison needs the same seed twice
        values = node.get("widgets_values") or []
        node["widgets_values"] = ["fixed" if value in SEED_CONTROLS else value for value in values]
    return graph


def _open_subgraphs(template: dict[str, Any]) -> FlatGraph:
    definitions = {entry["id"]: entry for entry in template.get("definitions", {}).get("subgraphs", [])}
    nodes = {node["id"]: node for node in template["nodes"]}
    links = [_outer_link(nodes, link) for link in template["links"]]
    for instance in [node for node in template["nodes"] if node["type"] in definitions]:
        definition = definitions[instance["type"]]
        inner = {node["id"]: node for node in definition["nodes"]}
        if set(inner) & set(nodes) or any(node["type"] in definitions for node in inner.values()):
            raise TemplateError(f"The subgraph '{definition['name']}' nests another, or repeats the id of a node.")
        del nodes[instance["id"]]
        nodes |= inner
        links = _spliced(links, instance["id"], definition, inner)
    return FlatGraph(nodes.values(), links)


def _outer_link(nodes: dict[int, Node], link: list[Any]) -> Link:
    _, origin, output, target, slot, kind = link
    return Link((origin, output), target, nodes[target]["inputs"][slot]["name"], kind)


def _spliced(links: list[Link], instance: int, definition: dict[str, Any], inner: dict[int, Node]) -> list[Link]:
    """The links, with a subgraph's inner ones instead of its node's. An unconnected input keeps its inner value."""
    fed = {link.input: link.origin for link in links if link.target == instance}
    given: dict[int, Socket] = {}
    spliced = [link for link in links if instance not in (link.origin[0], link.target)]
    for link in definition["links"]:
        origin, target = (link["origin_id"], link["origin_slot"]), link["target_id"]
        if origin[0] == SUBGRAPH_INPUT:
            outer = fed.get(definition["inputs"][origin[1]]["name"])
            if outer is None:
                continue
            origin = outer
        if target == SUBGRAPH_OUTPUT:
            given[link["target_slot"]] = origin
        else:
            name = inner[target]["inputs"][link["target_slot"]]["name"]
            spliced.append(Link(origin, target, name, link["type"]))
    for link in links:
        if link.origin[0] == instance:
            spliced.append(Link(given[link.origin[1]], link.target, link.input, link.type))
    return spliced


def _same_type(graph: FlatGraph, node: Node) -> Callable[[int], Socket | None]:
    """What a bypassed node passes on: for each output the first input of its type that is fed."""

    def replacement(output: int) -> Socket | None:
        kind = node["outputs"][output]["type"]
        names = [entry["name"] for entry in node["inputs"] if kind == "*" or entry["type"] in (kind, "*")]
        return next((origin for name in names if (origin := graph.source(node["id"], name))), None)

    return replacement


def _is_on(graph: FlatGraph, switch: Node) -> bool:
    socket = graph.source(switch["id"], "switch")
    return bool((switch if socket is None else graph.nodes[socket[0]])["widgets_values"][0])


def _prune(graph: FlatGraph, keep: Iterable[int]) -> None:
    """Leave out what leads to no result."""
    needed = {node["id"] for node in graph.nodes.values() if node["type"] in RESULTS} | set(keep)
    waiting = list(needed)
    while waiting:
        target = waiting.pop()
        new = {link.origin[0] for link in graph.links if link.target == target} - needed
        needed |= new
        waiting += new
    for node in set(graph.nodes) - needed:
        graph.remove(node)
