"""Steering Report."""

from __future__ import annotations

import json
from typing import Any

from comfy_api.latest import io
from comfy_execution.utils import get_executing_context

from ..bridge.browser import traces_for_cache
from ..bridge.steering.apply import steerings_of
from ..safety_steering.steering.chart import draw_runs
from ..safety_steering.steering.trace import OFF, RunTrace
from .previews import picture, shown
from .types import CATEGORY


class SteeringReport(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SafetySteering_SteeringReport",
            display_name="Steering Report",
            category=CATEGORY,
            description="Shows what Apply Safety Steering did in this run: at which steps and how far, with a warning "
            "if it did not act.",
            search_aliases=["safety", "steering", "guardrail", "trace", "proof", "chart"],
            inputs=[
                io.Model.Input("model", tooltip="The steered model, from Apply Safety Steering."),
                io.Latent.Input("samples", tooltip="From the sampler. The report is made after it has run."),
            ],
            outputs=[
                io.Image.Output("chart", tooltip="The report as a picture."),
                io.String.Output("report", tooltip="The same as JSON: every model call, before and after the edit."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, model: io.Model.Type, samples: dict[str, Any]) -> io.NodeOutput:
        traces = _traces_of_this_prompt(model)
        chart = picture(draw_runs(traces))
        report = json.dumps([trace.as_dict() for trace in traces], indent=1)
        text = "\n".join(trace.summary() for trace in traces)
        return io.NodeOutput(chart, report, ui=shown(cls, text, chart) | traces_for_cache(steerings_of(model)))


def _traces_of_this_prompt(model: io.Model.Type) -> list[RunTrace]:
    """The traces of the prompt that is being executed; of the last one if the sampler's result came from the cache."""
    context = get_executing_context()
    traces: list[RunTrace] = []
    for steering in steerings_of(model):
        kept = list(steering.traces)
        now = [trace for trace in kept if context and trace.prompt_id == context.prompt_id]
        traces += now or kept[-1:]
    if not traces:
        reason = "Apply Safety Steering is missing or bypassed, or this model was not sampled."
        traces = [RunTrace(OFF, settings={}, reason=reason)]
    return traces
