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


def sampler_inputs() -> list[io.Input]:
    """What KSampler asks for, a VAE to see the result, and a frame rate."""
    return [
        io.Model.Input("model", tooltip="The steered model, from Apply Safety Steering."),
        io.Conditioning.Input("positive", tooltip="The prompt, as it goes into the sampler."),
        io.Conditioning.Input("negative", tooltip="The negative prompt, as it goes into the sampler."),
        io.Latent.Input("latent_image", tooltip="The empty latent, or the one to start from. Its first is rendered."),
        io.Vae.Input("vae", tooltip="Makes pictures of the results."),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=0xFFFFFFFFFFFFFFFF,
            control_after_generate=True,
            tooltip="The noise. Every side starts from the same, so that only the steering differs.",
        ),
        io.Int.Input("steps", default=20, min=1, max=10000, tooltip="How many denoising steps, as for KSampler."),
        io.Float.Input(
            "cfg",
            default=6.0,
            min=0.0,
            max=100.0,
            step=0.1,
            tooltip="How closely to follow the prompt. Use what the model needs, as for KSampler.",
        ),
        io.Combo.Input("sampler_name", options=comfy.samplers.SAMPLER_NAMES, tooltip="The sampler, as for KSampler."),
        io.Combo.Input(
            "scheduler", options=comfy.samplers.SCHEDULER_NAMES, tooltip="How noise falls, as for KSampler."
        ),
        io.Float.Input(
            "denoise",
            default=1.0,
            min=0.01,
            max=1.0,
            step=0.01,
            tooltip="1 starts from noise; less keeps some of the latent. Widen the window of Apply for less than 1.",
        ),
        io.Float.Input(
            "fps", default=16.0, min=1.0, max=120.0, step=1.0, tooltip="Frames a second of the video that is shown."
        ),
        io.Sigmas.Input(
            "sigmas",
            optional=True,
            tooltip="For models whose schedule comes from a node of its own (LTX): stands for steps, scheduler and "
            "denoise.",
        ),
    ]
