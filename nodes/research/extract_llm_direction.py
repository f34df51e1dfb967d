"""Extract LLM Direction."""

from __future__ import annotations

import json
from typing import Any

import comfy.utils
import torch
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy_api.latest import io, ui

from ...bridge.folders import PROMPTS, find
from ...safety_steering.directions.charts import draw_sweep
from ...safety_steering.directions.pairs import VALENCE
from ...safety_steering.directions.portable import BUNDLED_ANCHORS, ExtractSettings, anchor_texts, extract_vector
from ...safety_steering.language_models.source_model import POOLINGS, SourceModel
from ...safety_steering.prompts.files import load_prompts
from ...safety_steering.prompts.prompt_set import PromptSet
from ...safety_steering.vectors.vector import describe
from ..types import CATEGORY, SafetyLlmType, SafetyPromptsType, SafetyVectorType


class ExtractLlmDirection(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SafetySteering_ExtractLLMDirection",
            display_name="Extract LLM Direction",
            category=CATEGORY,
            description="Learns in a language model which way is safe, from pairs of an unsafe prompt and its safe "
            "twin, and makes a portable vector: one file that Fit Benign Alignment carries into your video model.",
            search_aliases=["safety", "steering", "portable", "source", "language model", "contrast pairs", "transfer"],
            inputs=[
                SafetyLlmType.Input("safety_llm", tooltip="From Load Source LLM."),
                SafetyPromptsType.Input(
                    "safety_prompts",
                    tooltip="Pairs with categories, from Load Safety Prompts: safety_pairs.csv is bundled. Train pairs "
                    "give the directions, validation pairs choose the layer, test pairs are left alone.",
                ),
                io.String.Input(
                    "layer",
                    default="sweep",
                    tooltip="sweep: tries 16 layers and takes the one that tells held-out pairs apart best. all: tries "
                    "every layer. Or a layer's number, or a depth such as 0.9.",
                ),
                io.Combo.Input(
                    "pooling",
                    options=list(POOLINGS),
                    default=POOLINGS[0],
                    tooltip="How a prompt's words become one state. mean: their average, the usual one. last: its last "
                    "word. chat: where an assistant would begin its answer.",
                ),
                io.Combo.Input(
                    "valence",
                    options=list(VALENCE),
                    default=VALENCE[0],
                    tooltip="What to do with sad but safe prompts, if the set has such twins. project: the direction "
                    "does not see gloom at all. twins: they count as safe. keep: not used, and sad scenes are "
                    "brightened too. The chart shows the difference.",
                ),
                io.String.Input(
                    "categories", default="", tooltip="Which to extract, separated by commas. Empty: all of them."
                ),
                SafetyPromptsType.Input(
                    "anchors",
                    optional=True,
                    tooltip="Benign prompts that carry the vector into other models, some hundreds of them. Not "
                    "connected: the 1000 bundled ones.",
                ),
            ],
            outputs=[
                SafetyVectorType.Output(
                    "safety_vector", tooltip="Connect to Fit Benign Alignment and Transfer, or to Save Safety Vector."
                ),
                io.Image.Output("chart", tooltip="How well safe and unsafe prompts are told apart, layer by layer."),
                io.String.Output("table", tooltip="The same as JSON, one row a layer and category."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        safety_llm: SourceModel,
        safety_prompts: PromptSet,
        layer: str,
        pooling: str,
        valence: str,
        categories: str,
        anchors: PromptSet | None = None,
    ) -> io.NodeOutput:
        bar = comfy.utils.ProgressBar(1)

        def progress(done: int, total: int) -> None:
            throw_exception_if_processing_interrupted()
            bar.update_absolute(done, total)

        extracted = extract_vector(
            safety_llm,
            safety_prompts,
            anchor_texts(anchors or load_prompts(find(PROMPTS, BUNDLED_ANCHORS))),
            ExtractSettings(layer=layer, pooling=pooling, valence=valence),
            categories=[name.strip() for name in categories.split(",") if name.strip()],
            progress=progress,
        )
        picture = torch.from_numpy(draw_sweep(extracted)).float().div(255)[None]
        shown: dict[str, Any] = ui.PreviewText(describe(extracted.vector)).as_dict()
        previews = {**ui.PreviewImage(picture, cls=cls).as_dict(), **shown}
        return io.NodeOutput(extracted.vector, picture, json.dumps(extracted.table, indent=1), ui=previews)
