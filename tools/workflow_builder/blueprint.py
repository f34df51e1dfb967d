"""The subgraph blueprint "Safe T2V": Safe Model as one node, with the widgets that an artist moves.

ComfyUI looks for a pack's blueprints in `subgraphs/`, and puts a copy of its own on the canvas each time one is chosen.
"""

from __future__ import annotations

from typing import Any

from workflow_builder.chain import Steered, add_safe_models
from workflow_builder.graph import SUBGRAPH_INPUT, SUBGRAPH_OUTPUT, FlatGraph
from workflow_builder.nodes import COLOURS
from workflow_builder.page import GREEN, Group, Note, Page
from workflow_builder.subgraph import Promoted, borders, definition, instance, promote, slot

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
WIDTH = 430


def build_blueprint() -> dict[str, Any]:
    """The file's content. The node has no values of its own, so it begins with those inside."""
    graph = FlatGraph(borders([slot("model", "MODEL"), slot("clip", "CLIP")], [slot("model", "MODEL")]), [])
    steered = Steered((SUBGRAPH_INPUT, 0), SUBGRAPH_OUTPUT, samples=None)
    (safe,) = add_safe_models(graph, (SUBGRAPH_INPUT, 1), [steered])
    for widget, type_ in PROMOTED:
        promote(graph, Promoted(safe, widget, type_))
    columns = [[Group("Step 1 - Safe Model", [safe], WIDTH, GREEN)]]
    page = Page(NAME, graph, Note("What to change first", TEXT, (420, 460)), columns)
    described = definition(page, category="Safety Steering", description=DESCRIPTION)
    node = instance(described, [widget for widget, _ in PROMOTED])
    for entry in node["inputs"]:
        entry["link"] = None
    for entry in node["outputs"]:
        entry["links"] = None
    return {
        "revision": 0,
        "last_node_id": 1,
        "last_link_id": 0,
        "nodes": [{"id": 1, "pos": [0, 0], "size": [400, 200], "flags": {}, "order": 0, **node, **COLOURS}],
        "links": [],
        "version": 0.4,
        "definitions": {"subgraphs": [described]},
        "extra": {},
    }
