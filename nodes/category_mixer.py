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
            description="Sets how strongly each category of a safety vector is steered. Put it between the vector and "
            "Apply Safety Steering.",
            search_aliases=[*SEARCH_WORDS, "violence", "categories", "mix", "weights", "sliders", "preset"],
            inputs=[
                SafetyVectorType.Input("safety_vector", tooltip="The vector whose categories are weighted."),
                io.Combo.Input(
                    "preset",
                    options=list(PRESETS),
                    default="standard",
                    tooltip="Change this first. Weight of the categories that mix does not name. standard: as the "
                    "vector suggests. light: half of that. strict: one and a half times. off: 0. custom: only what mix "
                    "names.",
                ),
                io.String.Input(
                    "mix",
                    default="",
                    placeholder="violence=1, sexual=0.5",
                    tooltip="Weights of single categories, such as: violence=1, sexual=0.5. They replace the preset's. "
                    "0: not steered, 1: the usual. Empty: the preset sets all.",
                ),
            ],
            outputs=[
                SafetyVectorType.Output(
                    "safety_vector", tooltip="The same vector with these weights. Connect to Apply."
                ),
                io.String.Output(
                    "report", tooltip="What is steered, what is not, and which named categories the vector lacks."
                ),
            ],
            has_intermediate_output=True,  # a cached result's words are told again
        )

    @classmethod
    def execute(cls, safety_vector: SafetyVector, preset: str, mix: str) -> io.NodeOutput:
        mixed = resolve_mix(preset, mix, safety_vector.categories, safety_vector.info.suggestion.mix)
        report = mixed.summary()
        if mixed.unknown:
            logging.warning("Category Mixer: %s", report)
        shown = {"text": (report,), "mix": [{"weights": dict(mixed.weights), "unknown": dict(mixed.unknown)}]}
        return io.NodeOutput(safety_vector.with_mix(mixed.weights), report, ui=shown)
