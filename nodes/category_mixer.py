"""Category Mixer."""

from __future__ import annotations

import logging

from comfy_api.latest import io

from ..safety_steering.vectors.mix import PRESETS, resolve_mix
from ..safety_steering.vectors.vector import SafetyVector
from .types import CATEGORY, SEARCH_WORDS, SafetyVectorType


class CategoryMixer(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SafetySteering_CategoryMixer",
            display_name="Category Mixer",
            category=CATEGORY,
            description="Chooses how much of each category a safety vector steers: more of violence, less of another, "
            "none of a third. Put it between the vector and Apply Safety Steering.",
            search_aliases=[*SEARCH_WORDS, "violence", "categories", "mix", "weights", "sliders", "preset"],
            inputs=[
                SafetyVectorType.Input("safety_vector", tooltip="The vector whose categories are mixed."),
                io.Combo.Input(
                    "preset",
                    options=list(PRESETS),
                    default="standard",
                    tooltip="Try this first. How much to steer what the mix does not name: off nothing, light half, "
                    "standard as the vector suggests, strict one and a half times. custom: only what the mix names.",
                ),
                io.String.Input(
                    "mix",
                    default="",
                    placeholder="violence=1, sexual=0.5",
                    tooltip="Weights of single categories, such as: violence=1, sexual=0.5. They hold whatever the "
                    "preset is. 0 leaves a category alone, 1 is the usual. Empty: the preset holds for all.",
                ),
            ],
            outputs=[
                SafetyVectorType.Output("safety_vector", tooltip="The same vector, mixed: connect to Apply."),
                io.String.Output("report", tooltip="What is steered, what is left alone, and what the vector lacks."),
            ],
        )

    @classmethod
    def execute(cls, safety_vector: SafetyVector, preset: str, mix: str) -> io.NodeOutput:
        mixed = resolve_mix(preset, mix, safety_vector.categories, safety_vector.info.suggestion.mix)
        report = mixed.summary()
        if mixed.unknown:
            logging.warning("Category Mixer: %s", report)
        shown = {"text": (report,), "mix": [{"weights": dict(mixed.weights), "unknown": dict(mixed.unknown)}]}
        return io.NodeOutput(safety_vector.with_mix(mixed.weights), report, ui=shown)
