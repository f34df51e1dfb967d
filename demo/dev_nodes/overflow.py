"""Makes what a model predicts overflow, behind all of its blocks, as half precision can."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io


class Overflow(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SafetySteeringDev_Overflow",
            display_name="Overflow (development)",
            category="Safety Steering/development",
            description="For tests only. Multiplies every prediction by infinity.",
            inputs=[io.Model.Input("model")],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: Any) -> io.NodeOutput:
        patched = model.clone()
        patched.set_model_sampler_post_cfg_function(lambda args: args["denoised"] * float("inf"))
        return io.NodeOutput(patched)
