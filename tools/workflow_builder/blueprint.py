"""The subgraph blueprint "Safe T2V": Safe Model as one node, with the widgets that an artist moves.

ComfyUI looks for a pack's blueprints in `subgraphs/`, and puts a copy of its own on the canvas each time one is chosen.
"""

from __future__ import annotations

import uuid
from typing import Any

from workflow_builder.chain import Steered, add_safe_models
from workflow_builder.graph import SUBGRAPH_INPUT, SUBGRAPH_OUTPUT, FlatGraph
from workflow_builder.nodes import COLOURS
from workflow_builder.page import GREEN, Group, Note, Page

NAME = "Safe T2V"
# Safe Model's widgets on the outside, from the top, with their types.
PROMOTED = (("level", "FLOAT"), ("vector", "COMBO"), ("mix", "STRING"))
DESCRIPTION = (
    "Steers a text-to-video or text-to-image model to safe content. Wire it between the model loader and the sampler, "
    "and give it the model's text encoder. Change level first: 0 is off."
)
TEXT = """## What to change first

On the outside of this node, in this order:

1. **`level`**: 1 is as recommended, 2 twice as strong, 0 is off and leaves the model as it was.
2. **`mix`**: weights of single categories, such as `violence=1, sexual=0.5`; or come in here and move the sliders of \
**Safe Model**.
3. **`vector`**: auto takes the best file for the model.

In here right click **Safe Model** and choose **Open as nodes** to see and change the steps.

The bundled vector comes from a small language model and was never measured on the real Wan, LTX or Flux. Put a \
**Steering Report** behind your sampler: it says what was done."""
WIDTH, TOP = 430, 160


def build_blueprint() -> dict[str, Any]:
    """The file's content. The node has no values of its own, so it begins with those inside."""
    given, made = [_slot("model", "MODEL"), _slot("clip", "CLIP")], [_slot("model", "MODEL")]
    borders = [
        {"id": SUBGRAPH_INPUT, "inputs": [], "outputs": given},
        {"id": SUBGRAPH_OUTPUT, "inputs": made, "outputs": []},
    ]
    graph = FlatGraph(borders, [])
    steered = Steered((SUBGRAPH_INPUT, 0), SUBGRAPH_OUTPUT, samples=None)
    (safe,) = add_safe_models(graph, (SUBGRAPH_INPUT, 1), [steered])
    for widget, type_ in PROMOTED:
        _promote(graph, safe, widget, type_)
    columns = [[Group("Step 1 - Safe Model", [safe], WIDTH, GREEN)]]
    page = Page(NAME, graph, Note("What to change first", TEXT, (420, 460)), columns).workflow()
    definition = _definition(page, given, made)
    return {
        "revision": 0,
        "last_node_id": 1,
        "last_link_id": 0,
        "nodes": [_instance(definition["id"], given, made)],
        "links": [],
        "version": 0.4,
        "definitions": {"subgraphs": [definition]},
        "extra": {},
    }


def _slot(name: str, type_: str) -> dict[str, Any]:
    return {"name": name, "type": type_}


def _promote(graph: FlatGraph, id_: int, widget: str, type_: str) -> None:
    """Feed a widget from the subgraph's input of the same name: so it is shown on the outside."""
    node = graph.nodes[id_]
    node["inputs"].append({**_slot(widget, type_), "widget": {"name": widget}})
    given = graph.nodes[SUBGRAPH_INPUT]["outputs"]
    given.append(_slot(widget, type_))
    graph.connect((SUBGRAPH_INPUT, len(given) - 1), node["id"], widget)


def _definition(page: dict[str, Any], given: list[dict[str, Any]], made: list[dict[str, Any]]) -> dict[str, Any]:
    """A page as a subgraph's definition, with its inputs and outputs at the page's sides."""
    names = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    links = [dict(zip(names, link, strict=True)) for link in page["links"]]
    right = max(frame["bounding"][0] + frame["bounding"][2] for frame in page["groups"])
    feeds = [
        [link["id"] for link in links if link["origin_id"] == SUBGRAPH_INPUT and link["origin_slot"] == i]
        for i in range(len(given))
    ]
    results = [
        [link["id"] for link in links if link["target_id"] == SUBGRAPH_OUTPUT and link["target_slot"] == i]
        for i in range(len(made))
    ]
    return {
        "id": _uuid("definition"),
        "version": 1,
        "state": {
            "lastGroupId": len(page["groups"]),
            "lastNodeId": page["last_node_id"],
            "lastLinkId": page["last_link_id"],
            "lastRerouteId": 0,
        },
        "revision": 0,
        "config": {},
        "name": NAME,
        "category": "Safety Steering",
        "description": DESCRIPTION,
        "inputNode": {"id": SUBGRAPH_INPUT, "bounding": [-200, TOP, 140, 20 * len(given) + 40]},
        "outputNode": {"id": SUBGRAPH_OUTPUT, "bounding": [right + 60, TOP, 120, 60]},
        "inputs": [
            {"id": _uuid(f"input {slot['name']}"), **slot, "linkIds": ids}
            for slot, ids in zip(given, feeds, strict=True)
        ],
        "outputs": [
            {"id": _uuid(f"output {slot['name']}"), **slot, "linkIds": ids}
            for slot, ids in zip(made, results, strict=True)
        ],
        "widgets": [],
        "nodes": page["nodes"],
        "groups": page["groups"],
        "links": links,
        "extra": {},
    }


def _instance(definition: str, given: list[dict[str, Any]], made: list[dict[str, Any]]) -> dict[str, Any]:
    """The node that is put on the canvas."""
    widgets = {widget for widget, _ in PROMOTED}
    return {
        "id": 1,
        "type": definition,
        "pos": [0, 0],
        "size": [400, 200],
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": [
            {**slot, **({"widget": {"name": slot["name"]}} if slot["name"] in widgets else {}), "link": None}
            for slot in given
        ],
        "outputs": [{**slot, "links": None} for slot in made],
        "title": NAME,
        "properties": {},
        **COLOURS,
    }


def _uuid(what: str) -> str:
    """The same for every build."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"safety-steering/{NAME}/{what}"))
