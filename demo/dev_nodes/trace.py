"""The traces of a steered model as JSON: what Steering Report reads, without drawing it."""

from __future__ import annotations

import json
from typing import Any

from comfy.patcher_extension import WrappersMP
from comfy_api.latest import io, ui


class Trace(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SafetySteeringDev_Trace",
            display_name="Steering Trace (development)",
            category="Safety Steering/development",
            description="For tests only. The last run of every Apply Safety Steering on the model, in order.",
            inputs=[io.Model.Input("model"), io.AnyType.Input("after")],
            outputs=[io.String.Output()],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, model: Any, after: Any) -> io.NodeOutput:
        wrappers = model.get_wrappers(WrappersMP.OUTER_SAMPLE, "safety_steering")
        report = json.dumps([trace.as_dict() for wrapper in wrappers for trace in list(wrapper.__self__.traces)[-1:]])
        return io.NodeOutput(report, ui=ui.PreviewText(report))
