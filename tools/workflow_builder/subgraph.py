"""Subgraphs: a page as a subgraph's definition, and some nodes of a graph folded into one node."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from workflow_builder.graph import SUBGRAPH_INPUT, SUBGRAPH_OUTPUT, FlatGraph, Link, Node, Socket
from workflow_builder.page import WIDTH, Group, Page

Slot = dict[str, Any]
TOP = 160
NAMES = {"input": "image"}  # sockets whose names say too little


@dataclass(frozen=True)
class Promoted:
    """A widget of a node inside that is shown on the outside, as `name`."""

    node: int
    widget: str
    type: str
    name: str = ""


def slot(name: str, type_: str) -> Slot:
    """An input or output of a subgraph."""
    return {"name": name, "type": type_}


def borders(given: list[Slot], made: list[Slot]) -> list[Node]:
    """What stands for a subgraph's inputs and outputs in its graph."""
    return [
        {"id": SUBGRAPH_INPUT, "inputs": [], "outputs": given},
        {"id": SUBGRAPH_OUTPUT, "inputs": made, "outputs": []},
    ]


def promote(graph: FlatGraph, widget: Promoted) -> None:
    """Feed a widget inside from an input of the subgraph: so it is shown on the outside."""
    node, given = graph.nodes[widget.node], graph.nodes[SUBGRAPH_INPUT]["outputs"]
    if all(entry["name"] != widget.widget for entry in node["inputs"]):
        node["inputs"].append({**slot(widget.widget, widget.type), "widget": {"name": widget.widget}})
    given.append(slot(widget.name or widget.widget, widget.type))
    graph.connect((SUBGRAPH_INPUT, len(given) - 1), widget.node, widget.widget)


def definition(page: Page, **words: str) -> dict[str, Any]:
    """A page as a subgraph's definition, its inputs and outputs at the page's sides. words: such as its description."""
    given, made = page.graph.nodes[SUBGRAPH_INPUT]["outputs"], page.graph.nodes[SUBGRAPH_OUTPUT]["inputs"]
    drawn = page.workflow()
    names = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    links = [dict(zip(names, link, strict=True)) for link in drawn["links"]]
    right = max(box[0] + box[2] for box in page.boxes.values())
    feeds = [
        [link["id"] for link in links if link["origin_id"] == SUBGRAPH_INPUT and link["origin_slot"] == i]
        for i in range(len(given))
    ]
    results = [
        [link["id"] for link in links if link["target_id"] == SUBGRAPH_OUTPUT and link["target_slot"] == i]
        for i in range(len(made))
    ]
    return {
        "id": _uuid(page.name, "definition"),
        "version": 1,
        "state": {
            "lastGroupId": len(drawn["groups"]),
            "lastNodeId": drawn["last_node_id"],
            "lastLinkId": drawn["last_link_id"],
            "lastRerouteId": 0,
        },
        "revision": 0,
        "config": {},
        "name": page.name,
        **words,
        "inputNode": {"id": SUBGRAPH_INPUT, "bounding": [-200, TOP, 140, 20 * len(given) + 40]},
        "outputNode": {"id": SUBGRAPH_OUTPUT, "bounding": [right + 60, TOP, 120, 60]},
        "inputs": [
            {"id": _uuid(page.name, f"input {entry['name']}"), **entry, "linkIds": ids}
            for entry, ids in zip(given, feeds, strict=True)
        ],
        "outputs": [
            {"id": _uuid(page.name, f"output {entry['name']}"), **entry, "linkIds": ids}
            for entry, ids in zip(made, results, strict=True)
        ],
        "widgets": [],
        "nodes": drawn["nodes"],
        "groups": drawn["groups"],
        "links": links,
        "extra": {},
    }


def instance(of: dict[str, Any], promoted: Collection[str]) -> Node:
    """A node that is a subgraph, without links. promoted: the names of its inputs that are widgets."""
    return {
        "type": of["id"],
        "mode": 0,
        "inputs": [
            {
                **slot(entry["name"], entry["type"]),
                **({"widget": {"name": entry["name"]}} if entry["name"] in promoted else {}),
            }
            for entry in of["inputs"]
        ],
        "outputs": [slot(entry["name"], entry["type"]) for entry in of["outputs"]],
        "title": of["name"],
        "properties": {},
    }


def fold(
    graph: FlatGraph, inside: Collection[int], name: str, promoted: Sequence[Promoted]
) -> tuple[int, dict[str, Any]]:
    """Put some nodes of a graph into a subgraph; returns the id of the node in their place, and the definition."""
    entering = [link for link in graph.links if link.target in inside and link.origin[0] not in inside]
    leaving = [link for link in graph.links if link.origin[0] in inside and link.target not in inside]
    origins = sorted(dict.fromkeys(link.origin for link in entering), key=lambda one: _rank(entering, one))
    given = [slot(_name(graph, entering, origin), _feeding(entering, origin).type) for origin in origins]
    sources = list(dict.fromkeys(link.origin for link in leaving))
    made = [slot(link.input, link.type) for link in (_feeding(leaving, source) for source in sources)]

    nodes = [graph.nodes[id_] for id_ in graph.nodes if id_ in inside]
    links = [link for link in graph.links if link.target in inside and link.origin[0] in inside]
    links += [
        Link((SUBGRAPH_INPUT, origins.index(link.origin)), link.target, link.input, link.type) for link in entering
    ]
    links += [
        Link(source, SUBGRAPH_OUTPUT, entry["name"], entry["type"]) for source, entry in zip(sources, made, strict=True)
    ]
    inner = FlatGraph([*borders(given, made), *nodes], links)
    for widget in promoted:
        promote(inner, widget)
    described = definition(Page(name, inner, None, _by_depth(inner)))

    node = graph.add(instance(described, [widget.name or widget.widget for widget in promoted]))
    for number, origin in enumerate(origins):
        graph.connect(origin, node, given[number]["name"])
    for link in leaving:
        graph.connect((node, sources.index(link.origin)), link.target, link.input)
    for id_ in inside:
        graph.remove(id_)
    return node, described


def _feeding(links: Sequence[Link], origin: Socket) -> Link:
    return next(link for link in links if link.origin == origin)


def _rank(links: Sequence[Link], origin: Socket) -> tuple[int, Socket]:
    """Inputs in the order in which people think of them; others behind."""
    known, name = ("model", "positive", "negative"), _feeding(links, origin).input
    return (known.index(name) if name in known else len(known)), origin


def _name(graph: FlatGraph, links: Sequence[Link], origin: Socket) -> str:
    """An input's name: that of the socket inside and, where it is one of several, the stage in its node's title."""
    name = NAMES.get(_feeding(links, origin).input, _feeding(links, origin).input)
    stage = str(graph.nodes[origin[0]].get("title", "")).partition("(")[2].rstrip(")")
    same = {link.origin for link in links if NAMES.get(link.input, link.input) == name}
    return f"{name} {stage}" if stage and len(same) > 1 else name


def _by_depth(graph: FlatGraph) -> list[list[Group]]:
    """A column for each depth: a node stands right of all that it reads."""
    depth: dict[int, int] = {}

    def depth_of(node: int) -> int:
        if node not in depth:
            read = [link.origin[0] for link in graph.links if link.target == node and link.origin[0] > 0]
            depth[node] = 1 + max(map(depth_of, read), default=-1)
        return depth[node]

    drawn = [node for node in graph.nodes if node > 0]
    deepest = max(map(depth_of, drawn))
    return [
        [Group("", [node for node in drawn if depth[node] == level], WIDTH * 3 // 4)] for level in range(deepest + 1)
    ]


def _uuid(name: str, what: str) -> str:
    """The same for every build."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"safety-steering/{name}/{what}"))
