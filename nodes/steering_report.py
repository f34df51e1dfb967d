"""Steering Report."""

from __future__ import annotations

import json
from typing import Any

from comfy_api.latest import io

from ..bridge.browser import traces_for_cache
from ..bridge.steering.lost import runs_of_latent
from ..safety_steering.steering.chart import draw_runs
from ..safety_steering.steering.trace import OFF, RunTrace
from .previews import picture, shown
from .types import CATEGORY

NOT_STEERED = RunTrace(OFF, {}, reason="Apply Safety Steering is missing or bypassed.")


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
        runs = [(steering, made) for steering, found in runs_of_latent(model) for made in found]
        traces = [trace for _, made in runs for trace in made.traces] or [NOT_STEERED]
        notes = [made.summary() for _, made in runs if made.summary()]
        chart = picture(draw_runs(traces, notes))
        report = json.dumps([trace.as_dict() for trace in traces], indent=1)
        text = "\n".join([*notes, *(trace.summary() for trace in traces)])
        last = {steering.node_id: made.traces[-1] for steering, made in runs}
        return io.NodeOutput(chart, report, ui=shown(cls, text, chart) | traces_for_cache(last.values()))
