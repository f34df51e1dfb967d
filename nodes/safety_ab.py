"""Safety A/B, and the sampler widgets that it shares with Strength Grid."""

from __future__ import annotations

from typing import Any

import comfy.samplers
from comfy_api.latest import io

from ..bridge.browser_messages import traces_for_cache
from ..bridge.comparison import Scene, make_sampling, render_both
from ..bridge.comparison_files import preview_pair, to_image, to_video
from ..bridge.steering.apply import steerings_of
from ..safety_steering.pictures import draw_grid
from .types import CATEGORY


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


class SafetyAB(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SafetySteering_SafetyAB",
            display_name="Safety A/B",
            category=CATEGORY,
            description="Renders the same prompt and noise without and with steering, in one run, and lets you wipe "
            "between them. Put it in the place of KSampler while you choose settings.",
            search_aliases=["safety", "nsfw", "compare", "before after", "side by side", "steering", "slider", "A/B"],
            inputs=sampler_inputs(),
            outputs=[
                io.Image.Output("side_by_side", tooltip="Both sides beside each other, labelled."),
                io.Video.Output("video", tooltip="The same as a video: connect to Save Video."),
                io.Image.Output("unsteered", tooltip="What the model makes without steering."),
                io.Image.Output("steered", tooltip="What it makes with steering."),
                io.String.Output("report", tooltip="What steering did, in a sentence."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        model: io.Model.Type,
        positive: Any,
        negative: Any,
        latent_image: dict[str, Any],
        vae: Any,
        seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        denoise: float,
        fps: float,
        sigmas: Any = None,
    ) -> io.NodeOutput:
        sampling = make_sampling(model, latent_image, seed, steps, cfg, sampler_name, scheduler, denoise, sigmas)
        unsteered, steered = render_both(model, Scene(vae, positive, negative, sampling))
        both = draw_grid([[unsteered.frames, steered.frames]], [["unsteered", "steered"]])
        previews = preview_pair(unsteered.frames, steered.frames, fps)
        shown = {**previews, "text": (steered.report,), **traces_for_cache(steerings_of(model))}
        return io.NodeOutput(
            to_image(both),
            to_video(both, fps),
            to_image(unsteered.frames),
            to_image(steered.frames),
            steered.report,
            ui=shown,
        )
