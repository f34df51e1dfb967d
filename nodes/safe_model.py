"""Safe Model."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ..bridge.browser import trace_teller
from ..bridge.folders import VECTORS, find, vector_labels
from ..bridge.safe_model import AUTO, safe_model, vector_versions
from ..safety_steering.prompts.prompt_set import PromptSet
from ..safety_steering.vectors.mix import parse_mix
from .inputs import is_valid, level
from .types import CATEGORY, SEARCH_WORDS, SafetyPromptsType, SafetyVectorType


class SafeModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SafetySteering_SafeModel",
            display_name="Safe Model",
            category=CATEGORY,
            description="Steers a model towards safe content with the recommended settings. Put it between the model "
            "loader and the sampler. It takes the best safety vector for the model, fits it if need be (about a "
            "minute, once) and applies it.",
            search_aliases=[*SEARCH_WORDS, "nudity", "violence", "one node", "REINS"],
            inputs=[
                io.Model.Input("model", tooltip="The model to steer. It is not changed; the output is a steered copy."),
                io.Combo.Input(
                    "vector",
                    options=[AUTO, *vector_labels()],
                    default=AUTO,
                    optional=True,
                    tooltip="auto: the best file for this very model: calibrated on it, else made for it, else a "
                    "portable one. Or choose a file.",
                ),
                level(),
                io.String.Input(
                    "mix",
                    default="",
                    optional=True,
                    placeholder="violence=1, sexual=0.5",
                    tooltip="Weights of single categories, such as: violence=1, sexual=0.5. 0: not steered, 1: the "
                    "usual. Empty, and categories not named: as the vector suggests.",
                ),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="The model's text encoder. Needed for a portable vector, which is fitted to it.",
                ),
                SafetyPromptsType.Input(
                    "benign_prompts",
                    optional=True,
                    tooltip="For better results with a portable vector: harmless prompts like those you use, from Load "
                    "Safety Prompts. Nothing checks that they are harmless; check them yourself.",
                ),
            ],
            outputs=[
                io.Model.Output("model", tooltip="The steered model. Connect to the sampler."),
                io.Clip.Output(
                    "clip",
                    tooltip="The text encoder, steered if the vector steers inside it. Connect to CLIP Text Encode.",
                ),
                SafetyVectorType.Output("safety_vector", tooltip="The vector that is applied, fitted and mixed."),
                io.String.Output("report", tooltip="Which vector and settings were chosen, and why."),
            ],
            hidden=[io.Hidden.unique_id],
            has_intermediate_output=True,  # a cached result's words are told again
        )

    @classmethod
    def validate_inputs(cls, vector: str = AUTO, mix: str = "") -> bool | str:
        return is_valid(lambda: (vector == AUTO or find(VECTORS, vector), parse_mix(mix)))

    @classmethod
    def fingerprint_inputs(cls, vector: str = AUTO, **inputs: object) -> str:
        # the trace of a run is told to this node: a result in the cache of another node would tell that one
        return f"{cls.hidden.unique_id} {vector_versions(vector)}"

    @classmethod
    def execute(
        cls,
        model: io.Model.Type,
        vector: str = AUTO,
        level: float = 1.0,
        mix: str = "",
        clip: io.Clip.Type | None = None,
        benign_prompts: PromptSet | None = None,
    ) -> io.NodeOutput:
        made = safe_model(model, clip, vector, level, mix, benign_prompts, trace_teller(cls.hidden.unique_id))
        shown = {**ui.PreviewText(made.report).as_dict(), "mix": [{"weights": dict(made.vector.mix), "unknown": {}}]}
        return io.NodeOutput(made.model, made.clip, made.vector, made.report, ui=shown)
