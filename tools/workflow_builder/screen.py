"""A page that fits on one screen at 100 % zoom, 1920 x 1080, and no wire of which runs behind a node.

Columns end at one height: text boxes, Safe Model and the result take what room is left. The note stands below the first
column's nodes. A wire that would cross a column runs above the page; one to a node below its own, between the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from workflow_builder.graph import Link, Node
from workflow_builder.page import SLOT, TITLE, WIDGET, Group, Page, is_subgraph, node_height

SCREEN = (1830, 930)  # of the page: what the frontend leaves free of a window of 1920 x 1080
LEFT, TOP = 76, 92  # the frontend's own bars
GAP, PADDING, HEADING, GUTTER = 12, 10, 38, 34
LANE = 10  # between wires above the page
# nodes that take what is left of their column, and the room that they need at least beyond sockets and widgets
STRETCHED = {"CLIPTextEncode": 40, "SaveImage": 120, "SaveVideo": 60, "SafetySteering_SafeModel": 336}
SMALLER = {"LoadImage": 210}
STEEP = 330  # a wire that climbs further is led up, or it bends behind the nodes beside it
ASIDE = 8  # between wires that are led up beside each other
Point = tuple[int, int]
Turn = tuple[int, int]  # the number of the column that it is right of, and how far down


@dataclass
class Screen(Page):
    """A `Page` whose columns fill one screen."""

    def _place(self) -> None:
        self._lanes = {link: number for number, link in enumerate(self._crossing())}
        top = LANE * (len(self._lanes) + 1)
        x = 0
        for number, column in enumerate(self.columns):
            rest = self._rest(column, number)
            y = top
            for group in column:
                y = self._fill(group, x, y, rest)
            if not number:
                self._note = [x, y + TITLE, column[0].width + 2 * PADDING, SCREEN[1] - y - TITLE]
            x += max(group.width for group in column) + 2 * PADDING + GUTTER
        if x > SCREEN[0]:  # a wire may turn right of the last column
            raise ValueError(f"{self.name}: the page is {x} px wide; {SCREEN[0]} fit on a screen.")

    def _fill(self, group: Group, x: int, y: int, rest: int) -> int:
        """Place a group's nodes from (x, y) downwards; returns where the next group begins."""
        below = y + HEADING
        for id_ in group.nodes:
            node = self.graph.nodes[id_]
            height = _least_height(node) + (rest if node["type"] in STRETCHED else 0)
            self.boxes[id_] = [x + PADDING, below + TITLE, group.width, height]
            below += TITLE + height + GAP
        self._frame(group, [x, y, group.width + 2 * PADDING, below - y], 20)
        return below + GUTTER

    def _rest(self, column: Sequence[Group], number: int) -> int:
        """What each stretched node of a column may take beyond its least height."""
        nodes = [self.graph.nodes[id_] for group in column for id_ in group.nodes]
        used = sum(TITLE + _least_height(node) + GAP for node in nodes) + len(column) * (HEADING + GUTTER) - GUTTER
        free = SCREEN[1] - LANE * (len(self._lanes) + 1) - used
        if free < 0:
            raise ValueError(f"{self.name}: column {number + 1} is {-free} px too tall for a screen.")
        stretched = sum(node["type"] in STRETCHED for node in nodes)
        return free // stretched if stretched else 0

    def _note_box(self) -> list[int]:
        return self._note

    def _column(self, node: int) -> int:
        return next(
            number for number, column in enumerate(self.columns) if any(node in group.nodes for group in column)
        )

    def _crossing(self) -> list[Link]:
        """Wires that would cross a column, the longest first: it runs outermost."""
        spans = {link: self._column(link.target) - self._column(link.origin[0]) for link in self.graph.links}
        return sorted((link for link, span in spans.items() if span > 1), key=lambda link: -spans[link])

    def _extra(self) -> dict[str, Any]:
        reroutes: list[dict[str, Any]] = []
        extensions: list[dict[str, int]] = []
        for link, points in self._ways().items():
            number = self.graph.links.index(link) + 1
            parent: dict[str, int] = {}
            for point in points:
                reroutes.append({"id": len(reroutes) + 1, **parent, "pos": list(point), "linkIds": [number]})
                parent = {"parentId": len(reroutes)}
            extensions.append({"id": number, **parent})
        return {
            "ds": {"scale": 1, "offset": [LEFT, TOP]},
            "reroutes": reroutes,
            "linkExtensions": extensions,
        }

    def _ways(self) -> dict[Link, list[Point]]:
        """The points that wires are led through whose straight way is not free."""
        turns: dict[Link, list[Turn]] = {}
        for link in self.graph.links:
            start, end = self.boxes[link.origin[0]], self.boxes[link.target]
            left, right = self._column(link.origin[0]), self._column(link.target) - 1
            out, into = (
                box[1] + SLOT * number + SLOT * 7 // 10
                for box, number in ((start, link.origin[1]), (end, self._slot(link.target, link.input)))
            )
            if link in self._lanes:
                lane = LANE * self._lanes[link]
                climb = [(left, out)] if out - lane > STEEP else []
                turns[link] = [*climb, (left, lane), (right, lane)]
            elif left == right + 1:  # to a node below: between the two
                between = end[1] - TITLE - HEADING - GUTTER // 2
                turns[link] = [(left, between), (right, between)]
            elif abs(out - into) > STEEP:
                turns[link] = [(left, out), (left, into)]
        # side by side, where several wires turn between the same columns
        users = {
            gutter: [link for link in turns if any(one == gutter for one, _ in turns[link])]
            for gutter in range(-1, len(self.columns))
        }
        return {
            link: [(self._middle(gutter) + _aside(users[gutter], link), y) for gutter, y in found]
            for link, found in turns.items()
        }

    def _middle(self, gutter: int) -> int:
        """Halfway between a column and the next."""
        widths = [max(group.width for group in column) + 2 * PADDING + GUTTER for column in self.columns]
        return sum(widths[: gutter + 1]) - GUTTER // 2


def _aside(links: list[Link], link: Link) -> int:
    return round(ASIDE * (links.index(link) - (len(links) - 1) / 2))


def _least_height(node: Node) -> int:
    if is_subgraph(node):
        return node_height(node)
    sockets = max(sum("widget" not in entry for entry in node["inputs"]), len(node["outputs"]))
    rows = SLOT * sockets + WIDGET * len(node["widgets_values"]) + 16
    small = STRETCHED.get(node["type"], SMALLER.get(node["type"]))
    return node_height(node) if small is None else rows + small
