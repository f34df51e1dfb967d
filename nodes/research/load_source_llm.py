"""Load Source LLM."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...bridge.folders import LLMS, file_version, find, names
from ...bridge.language_models.clip_source import ClipSource
from ...bridge.language_models.managed import DEVICES, FROM_CLIP, PRECISIONS, ManagedLanguageModel
from ...safety_steering.errors import SafetySteeringError
from ...safety_steering.language_models.model_files import check_files, weight_files
from ..inputs import is_valid
from ..types import CATEGORY, SafetyLlmType


class LoadSourceLlm(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SafetySteering_LoadSourceLLM",
            display_name="Load Source LLM",
            category=CATEGORY,
            description="Chooses the language model in which a portable safety vector is fitted: one in "
            "models/safety_llms, or a text encoder that is already loaded. Nothing is downloaded.",
            search_aliases=[
                "safety",
                "steering",
                "language model",
                "LLM",
                "gguf",
                "hugging face",
                "text encoder",
                "portable",
            ],
            inputs=[
                io.Combo.Input(
                    "model",
                    options=[*names(LLMS), FROM_CLIP],
                    tooltip="A Hugging Face folder or a .gguf file in models/safety_llms, or the CLIP connected below. "
                    "A larger model knows more themes: start with an 8B instruct model.",
                ),
                io.Combo.Input(
                    "device",
                    options=list(DEVICES),
                    default=DEVICES[0],
                    tooltip="auto: your graphics card, if there is one. cpu: slower, but uses no memory of the card. A "
                    "CLIP stays where ComfyUI put it.",
                ),
                io.Combo.Input(
                    "precision",
                    options=list(PRECISIONS),
                    default=PRECISIONS[0],
                    tooltip="auto: bfloat16 on a graphics card, float32 on a cpu. float16 can overflow in some models. "
                    "A CLIP keeps its own.",
                ),
                io.Int.Input(
                    "batch_size",
                    default=16,
                    min=1,
                    max=512,
                    tooltip="How many prompts are read at once. Use fewer if memory runs out. A CLIP reads them one by "
                    "one.",
                ),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="A text encoder to use in place of a file: Gemma 3, Qwen, Llama, T5, umT5 or CLIP. Set "
                    f"model to '{FROM_CLIP}'.",
                ),
            ],
            outputs=[
                SafetyLlmType.Output("safety_llm", tooltip="Connect to Extract LLM Direction or Fit Benign Alignment."),
                io.String.Output("info", tooltip="The model's name, its number of layers and their width."),
            ],
        )

    @classmethod
    def validate_inputs(cls, model: str) -> bool | str:
        return model == FROM_CLIP or is_valid(lambda: check_files(find(LLMS, model)))

    @classmethod
    def fingerprint_inputs(cls, model: str, **settings: Any) -> list[Any]:
        if model == FROM_CLIP:
            return []
        return [(file.name, *file_version(file)) for file in weight_files(find(LLMS, model))]

    @classmethod
    def execute(cls, model: str, device: str, precision: str, batch_size: int, clip: Any = None) -> io.NodeOutput:
        if (model == FROM_CLIP) != (clip is not None):
            raise SafetySteeringError(
                f"A CLIP is {'not ' if clip is None else ''}connected, and the model is '{model}'. Connect one and "
                f"choose '{FROM_CLIP}', or disconnect it and choose a file."
            )
        llm = (
            ClipSource(clip)
            if clip is not None
            else ManagedLanguageModel(find(LLMS, model), device=device, dtype=precision, batch=batch_size)
        )
        return io.NodeOutput(llm, f"{llm.name}: {llm.layers} layers, {llm.width} wide")
