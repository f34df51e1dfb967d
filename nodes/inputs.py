"""The inputs by which a node that samples many prompts is told how; they make a `Sampling`."""

from __future__ import annotations

from typing import Any

import comfy.samplers
from comfy_api.latest import io


def sampling_widgets() -> list[Any]:
    """steps, cfg, sampler_name, scheduler, seed, negative."""
    return [
        io.Int.Input("steps", default=20, min=1, max=10000, tooltip="As in KSampler. Few are often enough."),
        io.Float.Input("cfg", default=5.0, min=0.0, max=100.0, step=0.1, tooltip="As in KSampler."),
        io.Combo.Input("sampler_name", options=list(comfy.samplers.KSampler.SAMPLERS), tooltip="As in KSampler."),
        io.Combo.Input("scheduler", options=list(comfy.samplers.KSampler.SCHEDULERS), tooltip="As in KSampler."),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=2**63 - 1,
            control_after_generate=False,
            tooltip="Each pair of prompts gets noise of its own, drawn from this and the pair's id.",
        ),
        io.String.Input("negative", default="", multiline=True, tooltip="The negative prompt of every run."),
    ]


def sampling_links() -> list[Any]:
    """template, sampler, sigmas, guider; all optional."""
    return [
        io.Conditioning.Input(
            "template",
            optional=True,
            tooltip="Only if the model needs more than a prompt: connect what WanImageToVideo, LTXVConditioning or "
            "FluxGuidance gives for any prompt. Start image, frame rate and guidance are taken from it.",
        ),
        io.Sampler.Input("sampler", optional=True, tooltip="In place of sampler_name, if yours is a node."),
        io.Sigmas.Input("sigmas", optional=True, tooltip="In place of steps and scheduler, if yours is a node."),
        io.Guider.Input(
            "guider",
            optional=True,
            tooltip="In place of cfg and negative, if yours is a node. Each prompt takes the place of its positive "
            "one; connect the same model to it as above.",
        ),
    ]
