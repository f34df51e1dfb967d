"""Lays a graph out on a page and writes it in the frontend's workflow format: titled groups in columns, and a note."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from workflow_builder.graph import FlatGraph, Node, templates_version

BLUE, GREEN = "#3f789e", "#3f9e6b"
# a widget's row is that of Vue nodes, which are taller than the classic canvas draws them
TITLE, SLOT, WIDGET, GAP, PADDING, COLUMN_GAP = 30, 20, 28, 26, 20, 40
HEADING = 50  # of a group
WIDTH = 400
BETA = 26  # the word below a Vue node that ComfyUI calls experimental
ENTER = 40  # the button below a Vue node that opens its subgraph
# room for a text box, a picture or a video, beyond a node's sockets and widgets
EXTRA = {
    "CLIPTextEncode": 150,
    "ComfyMathExpression": 48,
    "CreateVideo": 40,
    "LTXVLatentUpsampler": BETA,
    "LoadImage": 290,
    "ManualSigmas": BETA + 6,
    "ResizeImagesByLongerEdge": BETA,
    "SaveImage": 400,
    "SaveVideo": 380,
    "SafetySteering_ApplySafetySteering": 400,
    "SafetySteering_CalibrateSteering": 700,
    "SafetySteering_CaptureActivations": 150,
    "SafetySteering_CategoryMixer": 380,
    "SafetySteering_EvaluateSafety": 820,
    "SafetySteering_FitBenignAlignment": 570,
    "SafetySteering_FitSafetyDirection": 500,
    "SafetySteering_LoadSafetyPrompts": 290,
    "SafetySteering_LoadSafetyVector": 270,
    "SafetySteering_SafeModel": 560,
    "SafetySteering_SafetyAB": 620,
    "SafetySteering_SafetyJudge": 190,
    "SafetySteering_SaveSafetyVector": 240,
    "SafetySteering_SteeringReport": 340,
    "SafetySteering_TransferDirection": 310,
}
KEPT_PROPERTIES = ("models", "safety_vector")  # where to get a file that is missing
KEPT_SOCKET = ("name", "type", "shape", "widget")


@dataclass(frozen=True)
class Group:
    """A titled frame around nodes, stacked in this order."""

    title: str
    nodes: Sequence[int]
    width: int = WIDTH
    colour: str = BLUE


@dataclass(frozen=True)
class Note:
    """Markdown that stands before the first column."""

    title: str
    text: str
    size: tuple[int, int] = (460, 620)


@dataclass
class Page:
    """A graph with a position for every node. Nodes with ids below 0 are the borders of a subgraph and have none.

    definitions: of the subgraphs that nodes of the graph are instances of.
    """

    name: str
    graph: FlatGraph
    note: Note | None
    columns: Sequence[Sequence[Group]]
    definitions: Sequence[dict[str, Any]] = ()
    boxes: dict[int, list[int]] = field(init=False)
    frames: list[dict[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        placed = [node for column in self.columns for group in column for node in group.nodes]
        if sorted(placed) != sorted(self._drawn):
            wrong = set(placed) ^ set(self._drawn)
            raise ValueError(
                f"{self.name}: every node stands in one frame; see {sorted(wrong) or 'the repeated ones'}."
            )
        self.boxes, self.frames = {}, []
        self._place()

    def _place(self) -> None:
        """Give every node its box and every group its frame."""
        x = self.note.size[0] + COLUMN_GAP if self.note else 0
        for column in self.columns:
            y = 0
            for group in column:
                y = self._stack(group, x, y)
            x += max(group.width for group in column) + 2 * PADDING + COLUMN_GAP

    @property
    def _drawn(self) -> dict[int, Node]:
        return {id_: node for id_, node in self.graph.nodes.items() if id_ > 0}

    def _stack(self, group: Group, x: int, y: int) -> int:
        """Place a group's nodes from (x, y) downwards; returns where the next group begins."""
        below = y + HEADING
        for node in group.nodes:
            height = node_height(self.graph.nodes[node])
            self.boxes[node] = [x + PADDING, below + TITLE, group.width, height]
            below += TITLE + height + GAP
        self._frame(group, [x, y, group.width + 2 * PADDING, below - y], 24)
        return below + COLUMN_GAP

    def _frame(self, group: Group, bounds: list[int], font_size: int) -> None:
        if group.title:
            frame = {"id": len(self.frames) + 1, "title": group.title, "bounding": bounds, "color": group.colour}
            self.frames.append({**frame, "font_size": font_size, "flags": {}})

    def _note_box(self) -> list[int]:
        assert self.note is not None
        return [0, TITLE, *self.note.size]

    def _extra(self) -> dict[str, Any]:
        """How the page is shown at first."""
        return {"ds": {"scale": 0.6, "offset": [60, 80]}}

    def workflow(self) -> dict[str, Any]:
        """The page in the frontend's format."""
        links = list(enumerate(self.graph.links, 1))
        nodes = [self._node(order, node, links) for order, node in enumerate(self._drawn.values())]
        if self.note:
            nodes.append(_note(self.note, self._note_box(), max(self.graph.nodes) + 1, len(nodes)))
        return {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"safety-steering/{self.name}")),
            "revision": 0,
            "last_node_id": max(node["id"] for node in nodes),
            "last_link_id": len(links),
            "nodes": nodes,
            "links": [
                [number, *link.origin, link.target, self._slot(link.target, link.input), link.type]
                for number, link in links
            ],
            "groups": self.frames,
            "config": {},
            "extra": {**self._extra(), "built_from": templates_version()},
            **({"definitions": {"subgraphs": list(self.definitions)}} if self.definitions else {}),
            "version": 0.4,
        }

    def _inputs(self, node: int) -> list[dict[str, Any]]:
        """A node's sockets: those of links, and those of widgets only if a link feeds them. All, of a subgraph."""
        inputs: list[dict[str, Any]] = self.graph.nodes[node]["inputs"]
        if is_subgraph(self.graph.nodes[node]):
            return inputs
        fed = {link.input for link in self.graph.links if link.target == node}
        return [entry for entry in inputs if "widget" not in entry or entry["name"] in fed]

    def _slot(self, node: int, name: str) -> int:
        return [entry["name"] for entry in self._inputs(node)].index(name)

    def _node(self, order: int, node: Node, links: list[tuple[int, Any]]) -> Node:
        x, y, width, height = self.boxes[node["id"]]
        feeds = {link.input: number for number, link in links if link.target == node["id"]}
        reads = {
            output: [number for number, link in links if link.origin == (node["id"], output)]
            for output in range(len(node["outputs"]))
        }
        properties = {key: value for key, value in node["properties"].items() if key in KEPT_PROPERTIES}
        return {
            "id": node["id"],
            "type": node["type"],
            "pos": [x, y],
            "size": [width, height],
            "flags": {},
            "order": order,
            "mode": node["mode"],
            "inputs": [
                {**{key: entry[key] for key in KEPT_SOCKET if key in entry}, "link": feeds.get(entry["name"])}
                for entry in self._inputs(node["id"])
            ],
            "outputs": [
                {"name": entry["name"], "type": entry["type"], "links": reads[output] or None}
                for output, entry in enumerate(node["outputs"])
            ],
            **{key: node[key] for key in ("title", "color", "bgcolor") if key in node},
            "properties": {"Node name for S&R": node["type"], **properties},
            # an instance of a subgraph has the values inside
            **({} if is_subgraph(node) else {"widgets_values": node["widgets_values"]}),
        }


def node_height(node: Node) -> int:
    """A height in which neither Vue nodes nor the classic canvas stretch the node, so that nothing overlaps."""
    sockets = max(sum("widget" not in entry for entry in node["inputs"]), len(node["outputs"]))
    if is_subgraph(node):
        return SLOT * sockets + WIDGET * (len(node["inputs"]) - sockets) + ENTER + 16
    return SLOT * sockets + WIDGET * len(node["widgets_values"]) + EXTRA.get(node["type"], 0) + 16


def is_subgraph(node: Node) -> bool:
    """Whether a node is an instance of a subgraph, which has no values of its own."""
    return "widgets_values" not in node


def _note(note: Note, box: list[int], id_: int, order: int) -> Node:
    return {
        "id": id_,
        "type": "MarkdownNote",
        "pos": box[:2],
        "size": box[2:],
        "flags": {},
        "order": order,
        "mode": 0,
        "inputs": [],
        "outputs": [],
        "title": note.title,
        "properties": {},
        "widgets_values": [note.text],
        "color": "#432",
        "bgcolor": "#653",
    }
