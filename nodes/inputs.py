"""Inputs that several nodes have, and what their values become."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import comfy.samplers
from comfy_api.latest import io

from ..bridge.comparison import Scene, make_sampling
from ..bridge.steering.settings import LEVELS
from ..safety_steering.errors import SafetySteeringError


def samplers() -> list[io.Input]:
    """sampler_name and scheduler, with KSampler's choices."""
    return [
        io.Combo.Input("sampler_name", options=list(comfy.samplers.KSampler.SAMPLERS), tooltip="As in KSampler."),
        io.Combo.Input("scheduler", options=list(comfy.samplers.KSampler.SCHEDULERS), tooltip="As in KSampler."),
    ]


def steps(more: str = "") -> io.Input:
    """steps, as in KSampler. more: what else the tooltip says."""
    return io.Int.Input("steps", default=20, min=1, max=10000, tooltip=f"As in KSampler.{more}")


def cfg(default: float) -> io.Input:
    """cfg, as in KSampler."""
    return io.Float.Input("cfg", default=default, min=0.0, max=100.0, step=0.1, tooltip="As in KSampler.")


def level() -> io.Input:
    """level: the factor of a recommended strength."""
    lowest, highest = LEVELS
    return io.Float.Input(
        "level",
        default=1.0,
        min=lowest,
        max=highest,
        step=0.05,
        optional=True,
        tooltip="How strongly to steer. 1 is as recommended for the vector, 2 is twice as strong, 0 is off (bit for "
        "bit).",
    )


def empty_latent() -> io.Input:
    """latent, of a node that samples many prompts."""
    return io.Latent.Input("latent", tooltip="An empty latent of the size to generate. Small and short is enough.")


def sampling_widgets() -> list[io.Input]:
    """steps, cfg, sampler_name, scheduler, seed, negative: fields of `bridge.sampling.sampling.Sampling`."""
    return [
        steps(" Few are often enough."),
        cfg(5.0),
        *samplers(),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=2**63 - 1,
            control_after_generate=False,
            tooltip="Each pair of prompts gets its own noise, drawn from this seed and the pair's id.",
        ),
        io.String.Input("negative", default="", multiline=True, tooltip="The negative prompt of every run."),
    ]


def sampling_links() -> list[io.Input]:
    """template, sampler, sigmas, guider: the optional fields of `Sampling`."""
    return [
        io.Conditioning.Input(
            "template",
            optional=True,
            tooltip="Only if the model needs more than a prompt: connect what WanImageToVideo, LTXVConditioning or "
            "FluxGuidance gives for any prompt. Start image, frame rate and guidance are taken from it.",
        ),
        io.Sampler.Input("sampler", optional=True, tooltip="Replaces sampler_name. For samplers that are nodes."),
        io.Sigmas.Input("sigmas", optional=True, tooltip="Replaces steps and scheduler. For schedules that are nodes."),
        io.Guider.Input(
            "guider",
            optional=True,
            tooltip="Replaces cfg and negative. For guiders that are nodes. Each prompt replaces its positive prompt. "
            "Connect the same model to it as above.",
        ),
    ]


def ksampler_inputs() -> list[io.Input]:
    """What KSampler asks for, a VAE to decode the result, and a frame rate."""
    return [
        io.Model.Input("model", tooltip="The steered model, from Safe Model or Apply Safety Steering."),
        io.Conditioning.Input("positive", tooltip="The prompt, as it goes into the sampler."),
        io.Conditioning.Input("negative", tooltip="The negative prompt, as it goes into the sampler."),
        io.Latent.Input(
            "latent_image", tooltip="An empty latent, or the one to start from. Only the first of a batch is used."
        ),
        io.Vae.Input("vae", tooltip="The model's VAE. Decodes the results."),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=0xFFFFFFFFFFFFFFFF,
            control_after_generate=True,
            tooltip="The noise. Every side starts from the same noise, so only the steering differs.",
        ),
        steps(),
        cfg(6.0),
        *samplers(),
        io.Float.Input(
            "denoise",
            default=1.0,
            min=0.01,
            max=1.0,
            step=0.01,
            tooltip="1 starts from noise. Less keeps some of the latent; then set window_end of Apply to 1.",
        ),
        io.Float.Input("fps", default=16.0, min=1.0, max=120.0, step=1.0, tooltip="Frame rate of the shown video."),
        io.Sigmas.Input(
            "sigmas",
            optional=True,
            tooltip="Replaces steps, scheduler and denoise. For schedules that are nodes (LTX).",
        ),
    ]


def scene_of(
    model: io.Model.Type, vae: io.Vae.Type, positive: Any, negative: Any, latent_image: dict[str, Any], **widgets: Any
) -> Scene:
    """The values of `ksampler_inputs`, but for fps, as a Scene."""
    return Scene(vae, positive, negative, make_sampling(model, latent_image, **widgets))


def new_file_inputs(default: str) -> list[io.Input]:
    """filename and overwrite."""
    return [
        io.String.Input(
            "filename", default=default, tooltip="Name of the file, without folder; .safetensors is added."
        ),
        io.Boolean.Input(
            "overwrite",
            default=False,
            tooltip="Off: an existing file of this name is kept and the node stops. On: it is replaced.",
        ),
    ]


def names_in(text: str) -> list[str]:
    """The names in a text that separates them by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def chosen(choice: dict[str, Any] | None, name: str, options: Iterable[str]) -> dict[str, Any]:
    """The value of a dynamic combo. ComfyUI passes None for an option that it does not know.

    Raises:
        SafetySteeringError: the option is unknown.
    """
    if choice is None:
        raise SafetySteeringError(f"The {name} is none of {', '.join(options)}. Choose one of them.")
    return choice


def is_valid(check: Callable[[], object]) -> bool | str:
    """For `validate_inputs`: True if `check` passes, else its error message."""
    try:
        check()
    except SafetySteeringError as error:
        return str(error)
    return True
