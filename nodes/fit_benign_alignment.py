"""Fit Benign Alignment."""

from __future__ import annotations

from typing import Any

import comfy.samplers
import torch
from comfy_api.latest import io, ui

from ..bridge.alignment.run import TARGETS, Inputs, align
from ..safety_steering.alignment.maps import METHODS, AlignmentSettings
from ..safety_steering.alignment.report import draw_alignment, report_alignment
from ..safety_steering.errors import SafetySteeringError
from ..safety_steering.prompts.prompt_set import PromptSet
from ..safety_steering.vectors.vector import SafetyVector
from .types import CATEGORY, SafetyAlignmentType, SafetyLlmType, SafetyPromptsType, SafetyVectorType


class FitBenignAlignment(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SafetySteering_FitBenignAlignment",
            display_name="Fit Benign Alignment",
            category=CATEGORY,
            description="Learns from harmless captions how a language model's states read in your own model, so that a "
            "portable safety vector can be carried over. Captions that the vector itself finds unsafe are refused. A "
            "fit that was made before is taken from models/safety_alignments.",
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
                    tooltip="Where to carry it. conditioning: what the model is told by the prompt; start here. "
                    "encoder_layer: inside the text encoder, to measure. clip_vision: what an image-to-video model is "
                    "told by its start image. blocks: inside the diffusion model; slow.",
                ),
                io.DynamicCombo.Input(
                    "method",
                    options=[
                        io.DynamicCombo.Option("ridge", []),
                        io.DynamicCombo.Option("orthogonal", []),
                        io.DynamicCombo.Option("mlp", [_hidden()]),
                        io.DynamicCombo.Option("reduced_rank", [_rank()]),
                    ],
                    tooltip="ridge: the usual one, tunes itself. orthogonal: only turns, for two models that are much "
                    "alike. mlp: a small network. reduced_rank: ridge through a few shared axes.",
                ),
                io.Float.Input(
                    "held_out",
                    default=0.2,
                    min=0.05,
                    max=0.5,
                    step=0.05,
                    tooltip="Share of the captions kept aside to judge the fit by.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**32 - 1,
                    control_after_generate=False,
                    tooltip="Which captions are kept aside.",
                ),
                SafetyLlmType.Input(
                    "safety_llm",
                    optional=True,
                    tooltip="Only for captions of your own: the vector's own language model, from Load Source LLM.",
                ),
                io.Clip.Input("clip", optional=True, tooltip="Your model's text encoder."),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="Your model. Needed for blocks, for models that rework the prompt (LTX-2), and for text "
                    "encoders this pack does not know by name. It generates nothing, except for blocks.",
                ),
                io.ClipVision.Input("clip_vision", optional=True, tooltip="For the target clip_vision."),
                SafetyPromptsType.Input(
                    "anchors",
                    optional=True,
                    tooltip="Harmless captions, from Load Safety Prompts; only their safe prompts are read. Without "
                    "them the vector's own are taken.",
                ),
                SafetyPromptsType.Input(
                    "benign_prompts",
                    optional=True,
                    tooltip="Better results: harmless prompts such as you use, from Load Safety Prompts. Only your own "
                    "encoder reads them, so nothing checks that they are harmless: see to it yourself.",
                ),
                io.Image.Input(
                    "images",
                    optional=True,
                    tooltip="For the target clip_vision: one harmless image for each caption in anchors, in its order.",
                ),
                io.Latent.Input(
                    "latent",
                    optional=True,
                    tooltip="For blocks: an empty latent to generate in. Without it, a small one.",
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
                io.String.Output("report", tooltip="How good the fit is on captions that it did not see."),
                io.Image.Output("chart", tooltip="Each dot a caption kept aside; dots above the line were recognised."),
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
        if target is None or method is None:  # core leaves out a choice that it does not know
            raise SafetySteeringError(
                f"Choose a target ({', '.join(TARGETS)}) and a method ({', '.join(METHODS)}); one of them is unknown."
            )
        settings = AlignmentSettings(**method, held_out=held_out, seed=seed)
        inputs = Inputs(
            safety_vector, safety_llm, clip, model, clip_vision, anchors, images, latent, template, benign_prompts
        )
        fitted = align(inputs, target, settings)
        report = report_alignment(fitted, safety_vector)
        picture = torch.from_numpy(draw_alignment(fitted)).float().div(255)[None]
        previews = {**ui.PreviewImage(picture, cls=cls).as_dict(), **ui.PreviewText(report).as_dict()}
        return io.NodeOutput(fitted, report, picture, ui=previews)


def _space() -> io.String.Input:
    return io.String.Input(
        "space",
        default="auto",
        tooltip="Leave it at auto. Only for models with two kinds of prompt states, SD3 (sd3.clip) and LTX-2 "
        "(ltx2.connector.audio): the name of the other.",
    )


def _layer() -> io.Float.Input:
    return io.Float.Input(
        "layer", default=0.5, min=0.0, max=1.0, step=0.01, tooltip="How deep: 0 is the first layer, 1 the last."
    )


def _hidden() -> io.Int.Input:
    return io.Int.Input("hidden", default=256, min=8, max=8192, tooltip="Width of the network's hidden layer.")


def _rank() -> io.Int.Input:
    return io.Int.Input("rank", default=0, min=0, max=8192, tooltip="How many shared axes; 0 finds a good number.")


def _block_inputs() -> list[Any]:
    return [
        io.String.Input(
            "hook_point", default="0.5", tooltip="Which block: a depth such as 0.5, or block.blocks.15.image."
        ),
        io.Int.Input("steps", default=20, min=1, max=10000, tooltip="Steps of a whole generation, as in KSampler."),
        io.Int.Input(
            "first_steps",
            default=2,
            min=1,
            max=10000,
            tooltip="How many of the steps are really made for each caption. 1 to 3 are fast.",
        ),
        io.Float.Input("cfg", default=1.0, min=0.0, max=100.0, step=0.1, tooltip="As in KSampler."),
        io.Combo.Input("sampler_name", options=list(comfy.samplers.KSampler.SAMPLERS), tooltip="As in KSampler."),
        io.Combo.Input("scheduler", options=list(comfy.samplers.KSampler.SCHEDULERS), tooltip="As in KSampler."),
        io.Int.Input(
            "full_runs",
            default=8,
            min=0,
            max=1000,
            tooltip="So many captions are also generated with all steps, and the report says how alike the states "
            "are. 0 saves the time.",
        ),
    ]
