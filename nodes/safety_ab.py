"""Safety A/B."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..bridge.browser import traces_for_cache
from ..bridge.comparison import describe_difference, preview_pair, render_both, to_image, to_video
from ..bridge.steering.apply import steerings_of
from ..safety_steering.pictures import draw_grid
from .inputs import ksampler_inputs, scene_of
from .types import CATEGORY


class SafetyAB(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SafetySteering_SafetyAB",
            display_name="Safety A/B",
            category=CATEGORY,
            description="Generates the same prompt from the same noise without and with steering, in one run, and "
            "compares them with a slider. Use it instead of KSampler while you choose settings.",
            search_aliases=["safety", "nsfw", "compare", "before after", "side by side", "steering", "slider", "A/B"],
            inputs=ksampler_inputs(),
            outputs=[
                io.Image.Output("side_by_side", tooltip="Both sides next to each other, with labels."),
                io.Video.Output("video", tooltip="The same as a video. Connect to Save Video."),
                io.Image.Output("unsteered", tooltip="The result without steering."),
                io.Image.Output("steered", tooltip="The result with steering."),
                io.String.Output("report", tooltip="What steering did, and how different the sides are."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, model: io.Model.Type, fps: float, **inputs: Any) -> io.NodeOutput:
        unsteered, steered = render_both(model, scene_of(model, **inputs))
        both = draw_grid([[unsteered.frames, steered.frames]], [["unsteered", "steered"]])
        difference = describe_difference(unsteered.frames, steered.frames, steered.found)
        shown = {**preview_pair(unsteered.frames, steered.frames, fps), "text": (steered.report, difference)}
        return io.NodeOutput(
            to_image(both),
            to_video(both, fps),
            to_image(unsteered.frames),
            to_image(steered.frames),
            f"{steered.report}\n{difference}",
            ui=shown | traces_for_cache(s.traces[-1] for s in steerings_of(model) if s.traces),
        )
