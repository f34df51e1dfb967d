"""Fit Benign Alignment."""

from __future__ import annotations

import logging
from typing import Any

import torch
from comfy_api.latest import io

from ..bridge.alignment.run import TARGETS, Inputs, align
from ..safety_steering.alignment.maps import METHODS, AlignmentSettings
from ..safety_steering.alignment.report import draw_alignment, report_alignment
from ..safety_steering.prompts.prompt_set import PromptSet
from ..safety_steering.vectors.vector import SafetyVector
from .inputs import cfg, chosen, samplers, steps
from .previews import picture, shown
from .types import CATEGORY, SafetyAlignmentType, SafetyLlmType, SafetyPromptsType, SafetyVectorType


class FitBenignAlignment(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SafetySteering_FitBenignAlignment",
            display_name="Fit Benign Alignment",
            category=CATEGORY,
            description="Fits a map from a language model's states to those of your model, on harmless captions. "
            "Transfer uses it to carry a portable safety vector over. Captions that the vector classifies as unsafe "
            "are refused. An earlier fit of the same inputs is taken from models/safety_alignments.",
            search_aliases=["safety", "steering", "portable", "align", "Procrustes", "ridge", "cross-model"],
            inputs=[
                SafetyVectorType.Input(
                    "safety_vector", tooltip="A portable vector, from Load Safety Vector or Extract LLM Direction."
                ),
                io.DynamicCombo.Input(
                    "target",
                    options=[
                        io.DynamicCombo.Option("conditioning", [_space()]),
                        io.DynamicCombo.Option("encoder_layer", [_layer()]),
                        io.DynamicCombo.Option("clip_vision", []),
                        io.DynamicCombo.Option("blocks", _block_inputs()),
                    ],
                    tooltip="Where the vector is carried to. conditioning: the prompt's states; start here. "
                    "encoder_layer: inside the text encoder; Apply then needs clip. clip_vision: the start image's "
                    "states of an image-to-video model. blocks: inside the diffusion model; slow.",
                ),
                io.DynamicCombo.Input(
                    "method",
                    options=[
                        io.DynamicCombo.Option("ridge", []),
                        io.DynamicCombo.Option("orthogonal", []),
                        io.DynamicCombo.Option("mlp", [_hidden()]),
                        io.DynamicCombo.Option("reduced_rank", [_rank()]),
                    ],
                    tooltip="ridge: the usual one; it chooses its own penalty. orthogonal: a rotation, for two similar "
                    "models. mlp: a small network. reduced_rank: ridge of low rank.",
                ),
                io.Float.Input(
                    "held_out",
                    default=0.2,
                    min=0.05,
                    max=0.5,
                    step=0.05,
                    tooltip="Share of the captions that are held out to measure the fit.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**32 - 1,
                    control_after_generate=False,
                    tooltip="Seed of the choice of held-out captions.",
                ),
                SafetyLlmType.Input(
                    "safety_llm",
                    optional=True,
                    tooltip="Only for your own anchors: the language model in which the vector was fitted.",
                ),
                io.Clip.Input("clip", optional=True, tooltip="Your model's text encoder."),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="Your model. Needed for blocks, for models that transform the prompt's states (LTX-2), and "
                    "for text encoders that this pack does not know by name. Only the target blocks samples it.",
                ),
                io.ClipVision.Input("clip_vision", optional=True, tooltip="For the target clip_vision."),
                SafetyPromptsType.Input(
                    "anchors",
                    optional=True,
                    tooltip="Harmless captions, from Load Safety Prompts. Only safe prompts are read. Not connected: "
                    "the captions in the vector.",
                ),
                SafetyPromptsType.Input(
                    "benign_prompts",
                    optional=True,
                    tooltip="For better results: harmless prompts like those you use, from Load Safety Prompts. Only "
                    "your encoder reads them, so nothing checks that they are harmless. Check them yourself.",
                ),
                io.Image.Input(
                    "images",
                    optional=True,
                    tooltip="For the target clip_vision: one harmless image for each caption of anchors, in the same "
                    "order.",
                ),
                io.Latent.Input(
                    "latent",
                    optional=True,
                    tooltip="For blocks: the empty latent to sample. Not connected: a small one.",
                ),
                io.Conditioning.Input(
                    "template",
                    optional=True,
                    tooltip="Only if the model needs more than a prompt: what WanImageToVideo, LTXVConditioning or "
                    "FluxGuidance gives for any harmless prompt.",
                ),
            ],
            outputs=[
                SafetyAlignmentType.Output("safety_alignment", tooltip="Connect to Transfer Direction from LLM."),
                io.String.Output("report", tooltip="How good the fit is on held-out captions."),
                io.Image.Output(
                    "chart", tooltip="Each dot is a held-out caption. Dots above the line were recognised."
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        safety_vector: SafetyVector,
        held_out: float,
        seed: int,
        target: dict[str, Any] | None = None,
        method: dict[str, Any] | None = None,
        safety_llm: Any = None,
        clip: io.Clip.Type | None = None,
        model: io.Model.Type | None = None,
        clip_vision: io.ClipVision.Type | None = None,
        anchors: PromptSet | None = None,
        benign_prompts: PromptSet | None = None,
        images: torch.Tensor | None = None,
        latent: dict[str, Any] | None = None,
        template: io.Conditioning.Type | None = None,
    ) -> io.NodeOutput:
        target = chosen(target, "target", TARGETS)
        settings = AlignmentSettings(**chosen(method, "method", METHODS), held_out=held_out, seed=seed)
        inputs = Inputs(
            safety_vector, safety_llm, clip, model, clip_vision, anchors, images, latent, template, benign_prompts
        )
        warnings: list[str] = []
        fitted = align(inputs, target, settings, warnings.append)
        for warning in warnings:
            logging.warning("Safety Steering: %s", warning)
        report = "\n".join([*(f"WARNING: {warning}" for warning in warnings), report_alignment(fitted, safety_vector)])
        chart = picture(draw_alignment(fitted))
        return io.NodeOutput(fitted, report, chart, ui=shown(cls, report, chart))


def _space() -> io.String.Input:
    return io.String.Input(
        "space",
        default="auto",
        tooltip="Leave it at auto. Only for models with two kinds of prompt states, SD3 (sd3.clip) and LTX-2 "
        "(ltx2.connector.audio): the name of the second.",
    )


def _layer() -> io.Float.Input:
    return io.Float.Input(
        "layer", default=0.5, min=0.0, max=1.0, step=0.01, tooltip="How deep: 0 is the first layer, 1 the last."
    )


def _hidden() -> io.Int.Input:
    return io.Int.Input("hidden", default=256, min=8, max=8192, tooltip="Width of the network's hidden layer.")


def _rank() -> io.Int.Input:
    return io.Int.Input("rank", default=0, min=0, max=8192, tooltip="Rank of the map. 0 chooses one.")


def _block_inputs() -> list[Any]:
    return [
        io.String.Input(
            "hook_point", default="0.5", tooltip="Which block: a depth such as 0.5, or block.blocks.15.image."
        ),
        steps(),
        io.Int.Input(
            "first_steps",
            default=2,
            min=1,
            max=10000,
            tooltip="How many of these steps are run for each caption. 1 to 3 are fast.",
        ),
        cfg(1.0),
        *samplers(),
        io.Int.Input(
            "full_runs",
            default=8,
            min=0,
            max=1000,
            tooltip="This many captions are also generated with all steps, and the report compares the states. 0: "
            "none.",
        ),
    ]
