"""Extract LLM Direction."""

from __future__ import annotations

import json

import comfy.utils
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy_api.latest import io

from ...bridge.folders import PROMPTS, find
from ...safety_steering.directions.charts import draw_sweep
from ...safety_steering.directions.pairs import VALENCE
from ...safety_steering.directions.portable import BUNDLED_ANCHORS, ExtractSettings, anchor_texts, extract_vector
from ...safety_steering.language_models.source_model import POOLINGS, SourceModel
from ...safety_steering.prompts.files import load_prompts
from ...safety_steering.prompts.prompt_set import PromptSet
from ...safety_steering.vectors.card import describe
from ...safety_steering.vectors.vector import DIFFERING, POOLED
from ..inputs import names_in
from ..previews import picture, shown
from ..types import CATEGORY, SafetyLlmType, SafetyPromptsType, SafetyVectorType


class ExtractLlmDirection(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SafetySteering_ExtractLLMDirection",
            display_name="Extract LLM Direction",
            category=CATEGORY,
            description="Finds the direction from unsafe to safe in a language model, from pairs of an unsafe prompt "
            "and its safe twin. The result is a portable vector: Fit Benign Alignment and Transfer carry it into your "
            "video model.",
            search_aliases=["safety", "steering", "portable", "source", "language model", "contrast pairs", "transfer"],
            inputs=[
                SafetyLlmType.Input("safety_llm", tooltip="From Load Source LLM."),
                SafetyPromptsType.Input(
                    "safety_prompts",
                    tooltip="Pairs with categories, from Load Safety Prompts: safety_pairs.csv is bundled. Directions "
                    "are fitted on the train pairs, the layer is chosen on the validation pairs, test pairs are not "
                    "used.",
                ),
                io.String.Input(
                    "layer",
                    default="sweep",
                    tooltip="sweep: tries 16 layers and takes the one that separates held-out pairs best. all: tries "
                    "every layer. Or the number of a layer, or a depth such as 0.9.",
                ),
                io.Combo.Input(
                    "pooling",
                    options=list(POOLINGS),
                    default=POOLINGS[0],
                    tooltip="How the states of a prompt's tokens become one. mean: their mean, the usual one. last: "
                    "the last token. chat: the token at which an assistant begins its answer.",
                ),
                io.Combo.Input(
                    "valence",
                    options=list(VALENCE),
                    default=VALENCE[0],
                    tooltip="What to do with safe prompts of negative sentiment, if the set has such twins. project: "
                    "removes the sentiment (valence) component from the direction. twins: they count as safe. keep: "
                    "they are not used, and steering makes sad scenes brighter too. The chart shows the difference.",
                ),
                io.String.Input(
                    "categories", default="", tooltip="Which to extract, separated by commas. Empty: all of them."
                ),
                SafetyPromptsType.Input(
                    "anchors",
                    optional=True,
                    tooltip="Benign prompts that are used to carry the vector into other models, some hundreds of "
                    "them. Not connected: the 1000 bundled ones.",
                ),
                io.Combo.Input(
                    "tokens",
                    options=[DIFFERING, POOLED],
                    default=DIFFERING,
                    optional=True,
                    tooltip="differing: the direction of the words that only unsafe prompts have; the best to steer "
                    "with. pooled: of the mean over all tokens, for language models that do not show which tokens a "
                    "word is made of.",
                ),
            ],
            outputs=[
                SafetyVectorType.Output(
                    "safety_vector", tooltip="Connect to Fit Benign Alignment and Transfer, or to Save Safety Vector."
                ),
                io.Image.Output("chart", tooltip="How well each layer separates safe from unsafe prompts."),
                io.String.Output("table", tooltip="The same as JSON, one row per layer and category."),
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
        tokens: str = DIFFERING,
    ) -> io.NodeOutput:
        bar = comfy.utils.ProgressBar(1)

        def progress(done: int, total: int) -> None:
            throw_exception_if_processing_interrupted()
            bar.update_absolute(done, total)

        extracted = extract_vector(
            safety_llm,
            safety_prompts,
            anchor_texts(anchors or load_prompts(find(PROMPTS, BUNDLED_ANCHORS))),
            ExtractSettings(layer=layer, pooling=pooling, valence=valence, tokens=tokens),
            categories=names_in(categories),
            progress=progress,
        )
        chart, table = picture(draw_sweep(extracted)), json.dumps(extracted.table, indent=1)
        return io.NodeOutput(extracted.vector, chart, table, ui=shown(cls, describe(extracted.vector), chart))
