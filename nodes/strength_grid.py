"""Strength Grid."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..bridge.comparison import (
    choose_mixes,
    parse_strengths,
    preview_frames,
    render_grid,
    to_image,
    to_video,
)
from ..bridge.steering.apply import steerings_of
from .inputs import ksampler_inputs, scene_of
from .types import CATEGORY


class StrengthGrid(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SafetySteering_StrengthGrid",
            display_name="Strength Grid",
            category=CATEGORY,
            description="Generates one prompt from the same noise at several strengths and for several categories, as "
            "one labelled picture or video. Each cell takes a run.",
            search_aliases=["safety", "compare", "xy plot", "grid", "strength", "steering", "categories"],
            inputs=[
                *ksampler_inputs(),
                io.String.Input(
                    "strengths",
                    default="0, 1, 2, 4",
                    tooltip="The columns: numbers separated by commas. They replace the strength of Apply Safety "
                    "Steering, or the level of recommended settings and of Safe Model; the rest stays.",
                ),
                io.String.Input(
                    "categories",
                    default="",
                    tooltip="The rows: categories separated by commas, or all for one row per category. Mixes are "
                    "separated by semicolons: violence=1, sexual=0.5; violence. Empty: one row, as mixed.",
                ),
                io.Int.Input(
                    "cell_width",
                    default=256,
                    min=32,
                    max=2048,
                    tooltip="Maximum width of a cell, in pixels. Smaller results keep their size.",
                ),
            ],
            outputs=[
                io.Image.Output("grid", tooltip="The grid as a picture, or as the frames of a video."),
                io.Video.Output("video", tooltip="The same as a video. Connect to Save Video."),
                io.String.Output("report", tooltip="What steering did in each cell, one line per cell."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls, model: io.Model.Type, fps: float, strengths: str, categories: str, cell_width: int, **inputs: Any
    ) -> io.NodeOutput:
        applied = steerings_of(model)
        rows = choose_mixes(categories, applied[-1].vector.categories if applied else ())
        scene = scene_of(model, **inputs)
        grid, reports = render_grid(model, scene, parse_strengths(strengths), rows, cell_width)
        report = "\n".join(reports)
        shown = {**preview_frames(grid, fps), "text": (report,)}
        return io.NodeOutput(to_image(grid), to_video(grid, fps), report, ui=shown)
