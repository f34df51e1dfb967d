"""Safety A/B, and the sampler widgets that it shares with Strength Grid."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..bridge.browser import traces_for_cache
from ..bridge.comparison import Scene, make_sampling, preview_pair, render_both, to_image, to_video
from ..bridge.steering.apply import steerings_of
from ..safety_steering.pictures import draw_grid
from .inputs import sampler_inputs
from .types import CATEGORY


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
