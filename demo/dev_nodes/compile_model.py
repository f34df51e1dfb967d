"""torch.compile of the whole model with a backend that needs no C compiler, and a count of the graphs it made."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io, ui
from comfy_api.torch_helpers import set_torch_compile_wrapper


def ignore_transformer_options(guards: Any) -> list[bool]:
    """The guard filter of core's TorchCompileModel: what changes in the options at every step is not guarded."""
    return ["transformer_options" not in guard.name for guard in guards]


class CompileModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SafetySteeringDev_CompileModel",
            display_name="Compile Model (development)",
            category="Safety Steering/development",
            description="For tests only. Core's TorchCompileModel with other backends.",
            inputs=[io.Model.Input("model"), io.Combo.Input("backend", options=["eager", "aot_eager"])],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: Any, backend: str) -> io.NodeOutput:
        compiled = model.clone(disable_dynamic=True)
        options = {"guard_filter_fn": ignore_transformer_options}
        set_torch_compile_wrapper(model=compiled, backend=backend, options=options)
        return io.NodeOutput(compiled)


class GraphCount(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SafetySteeringDev_GraphCount",
            display_name="Graph Count (development)",
            category="Safety Steering/development",
            description="For tests only. Reports how many graphs torch.compile has made since the last reset.",
            inputs=[io.Boolean.Input("reset", default=False, tooltip="Then forget all graphs and count from 0.")],
            outputs=[io.String.Output()],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> float:
        return float("nan")  # unequal to itself: counts anew in every run

    @classmethod
    def execute(cls, reset: bool) -> io.NodeOutput:
        count = str(torch._dynamo.utils.counters["stats"]["unique_graphs"])
        if reset:
            torch._dynamo.reset()
            torch._dynamo.utils.counters.clear()
        return io.NodeOutput(count, ui=ui.PreviewText(count))
