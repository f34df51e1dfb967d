"""Replaces a transformer block by nothing, as a careless or hostile node might."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io


class ReplaceBlock(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SafetySteeringDev_ReplaceBlock",
            display_name="Replace Block (development)",
            category="Safety Steering/development",
            description="For tests only. Makes core pass a block's input on as its output; the block never runs.",
            inputs=[io.Model.Input("model"), io.Int.Input("block", default=0, min=0)],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: Any, block: int) -> io.NodeOutput:
        patched = model.clone()
        patched.set_model_patch_replace(lambda args, extra: args, "dit", "double_block", block)
        return io.NodeOutput(patched)
