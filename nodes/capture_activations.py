"""Capture Activations."""

from __future__ import annotations

from typing import Any

import comfy.samplers
from comfy_api.latest import io

from ..bridge.activation_folders import activations_path, shards_of
from ..bridge.capture_run import Sampling, capture_prompts
from ..safety_steering.prompts import PromptSet
from .types import CATEGORY, SafetyActivationsType, SafetyPromptsType


class CaptureActivations(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SafetySteering_CaptureActivations",
            display_name="Capture Activations",
            category=CATEGORY,
            description="Generates every prompt of a set and keeps what the model was thinking: mean hidden states, "
            "in a folder under the output directory. Stop it whenever you like; it goes on where it was.",
            search_aliases=["safety", "steering", "hidden states", "extract", "REINS"],
            inputs=[
                io.Model.Input("model", tooltip="The model to look into, unsteered."),
                io.Clip.Input("clip", tooltip="The model's text encoder."),
                SafetyPromptsType.Input("prompts", tooltip="From Load Safety Prompts."),
                io.Latent.Input("latent", tooltip="An empty latent of the size to generate. Small and short will do."),
                io.String.Input(
                    "folder",
                    default="my_model",
                    tooltip="Name of the folder under output/safety_activations. The same name and settings go on "
                    "with a capture that was stopped.",
                ),
                io.String.Input(
                    "hook_points",
                    default="all",
                    tooltip="Where to look. all, a depth such as 0.5, a range of depths such as 0.25-0.75, or names "
                    "such as block.blocks.15.image and conditioning, separated by commas.",
                ),
                io.Int.Input(
                    "sigma_bins",
                    default=1,
                    min=1,
                    max=64,
                    tooltip="Noise levels that are kept apart; the steps are shared among them.",
                ),
                io.Int.Input("steps", default=20, min=1, max=10000, tooltip="As in KSampler. Few are often enough."),
                io.Float.Input("cfg", default=5.0, min=0.0, max=100.0, step=0.1, tooltip="As in KSampler."),
                io.Combo.Input(
                    "sampler_name", options=list(comfy.samplers.KSampler.SAMPLERS), tooltip="As in KSampler."
                ),
                io.Combo.Input(
                    "scheduler", options=list(comfy.samplers.KSampler.SCHEDULERS), tooltip="As in KSampler."
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**63 - 1,
                    tooltip="Each pair of prompts gets noise of its own, drawn from this and the pair's id.",
                ),
                io.String.Input("negative", default="", multiline=True, tooltip="The negative prompt of every run."),
                io.Conditioning.Input(
                    "template",
                    optional=True,
                    tooltip="Only if the model needs more than a prompt: connect what WanImageToVideo, "
                    "LTXVConditioning or FluxGuidance gives for any prompt. Start image, frame rate and guidance are "
                    "taken from it.",
                ),
            ],
            outputs=[SafetyActivationsType.Output("activations", tooltip="Connect to Fit Safety Direction.")],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, folder: str, **inputs: Any) -> list[str]:
        return shards_of(folder)  # a capture that was stopped or deleted is taken up again

    @classmethod
    def execute(
        cls,
        model: io.Model.Type,
        clip: io.Clip.Type,
        prompts: PromptSet,
        latent: dict[str, Any],
        folder: str,
        hook_points: str,
        sigma_bins: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        seed: int,
        negative: str,
        template: io.Conditioning.Type | None = None,
    ) -> io.NodeOutput:
        sampling = Sampling(latent, negative, steps, cfg, sampler_name, scheduler, seed, template)
        path = activations_path(folder)
        return io.NodeOutput(capture_prompts(model, clip, prompts, sampling, hook_points, sigma_bins, path))
