"""A shipped workflow as any machine can run it: stand-ins for the encoders, and sizes for a CPU; the rest as it was."""

from __future__ import annotations

import copy
from typing import Any

from workflow_builder.graph import every_node

Workflow = dict[str, Any]

WIDTH = 4096  # of the text states of Wan (umT5-XXL), LTXV and Flux (T5-XXL)
LTX2_WIDTH = 32  # of the tiny LTX-2's connectors (`tiny.models.LTX2_SIZES`)
STAND_IN_CLIP, STAND_IN_VISION = "SafetySteeringDev_StandInClip", "SafetySteeringDev_StandInClipVision"
# node type, or the title where types repeat -> {index of the widget: its value}
SIZES: dict[str, dict[int, Any]] = {
    "EmptyHunyuanLatentVideo": {0: 112, 1: 64, 2: 9},
    "WanImageToVideo": {0: 64, 1: 64, 2: 9},
    "Wan22ImageToVideoLatent": {0: 128, 1: 128, 2: 9},
    "EmptyLTXVLatentVideo": {0: 192, 1: 128, 2: 17},
    "LTXVImgToVideo": {0: 192, 1: 128, 2: 17},
    "EmptySD3LatentImage": {0: 128, 1: 128},
    "EmptyImage": {0: 256, 1: 128},
    "ResizeImageMaskNode": {1: 256, 2: 128},
    "ResizeImagesByLongerEdge": {0: 256},
    "KSampler": {2: 6},
    "SafetySteering_SafetyAB": {2: 6},
    "LTXVScheduler": {0: 6},
    "Int (Steps)": {0: 6},
    "Int (Split Steps)": {0: 3},
    "Float (Duration)": {0: 0.5},
    "Length": {0: 17},
}


def tiny_variant(workflow: Workflow) -> Workflow:
    """A frontend-format workflow with stand-ins for what loads its encoders, and small sizes."""
    tiny = copy.deepcopy(workflow)
    for node in every_node(tiny):
        if stand_in := _stand_in(node):
            node["type"], node["widgets_values"] = stand_in
            node["properties"], node["inputs"] = {"Node name for S&R": node["type"]}, []
        for index, value in SIZES.get(node.get("title", ""), SIZES.get(node["type"], {})).items():
            node["widgets_values"][index] = value
    return tiny


def _stand_in(node: dict[str, Any]) -> tuple[str, list[Any]] | None:
    """The type and widgets of what stands in for a node, None if it can run as it is."""
    match node["type"]:
        case "CLIPLoader":
            return STAND_IN_CLIP, [node["widgets_values"][1], WIDTH]
        case "DualCLIPLoader":
            return STAND_IN_CLIP, [node["widgets_values"][2], WIDTH]
        case "LTXAVTextEncoderLoader":
            return STAND_IN_CLIP, ["ltx2", LTX2_WIDTH]
        case "CLIPVisionLoader":
            return STAND_IN_VISION, []
    return None
