"""Counts the hooks registered on a loaded model, to prove that a run left none behind."""

from __future__ import annotations

import json
from typing import Any

import torch
from comfy_api.latest import io, ui


def hook_census(module: torch.nn.Module) -> dict[str, Any]:
    """Numbers of modules, forward hooks and forward pre-hooks in ``module``, and which modules carry any."""
    carriers = {
        name: len(child._forward_hooks) + len(child._forward_pre_hooks)
        for name, child in module.named_modules()
        if child._forward_hooks or child._forward_pre_hooks
    }
    return {
        "modules": sum(1 for _ in module.modules()),
        "forward_hooks": sum(len(child._forward_hooks) for child in module.modules()),
        "forward_pre_hooks": sum(len(child._forward_pre_hooks) for child in module.modules()),
        "carriers": carriers,
    }


class HookCensus(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SafetySteeringDev_HookCensus",
            display_name="Hook Census (development)",
            category="Safety Steering/development",
            description="For tests only. Reports as JSON how many hooks the model carries once `after` is there.",
            inputs=[io.Model.Input("model"), io.AnyType.Input("after", optional=True)],
            outputs=[io.String.Output()],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> float:
        return float("nan")  # unequal to itself: counts anew in every run

    @classmethod
    def execute(cls, model: Any, after: Any = None) -> io.NodeOutput:
        report = json.dumps(hook_census(model.model.diffusion_model))
        return io.NodeOutput(report, ui=ui.PreviewText(report))
