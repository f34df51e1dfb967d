"""Capture Activations."""

from __future__ import annotations

from collections import Counter
from typing import Any

from comfy_api.latest import io, ui

from ...bridge.capture.hook_points import MEAN, POOLINGS
from ...bridge.capture.run import PROMPT, RULES, Labels, capture_prompts
from ...bridge.folders import activations_path, shards_of
from ...bridge.sampling.sampling import Sampling
from ...safety_steering.activations import Activations
from ...safety_steering.prompts.prompt_set import PromptSet
from ..inputs import empty_latent, sampling_links, sampling_widgets
from ..types import CATEGORY, SafetyActivationsType, SafetyJudgeType, SafetyPromptsType

BRANCHES = ("positive", "negative", "both")


class CaptureActivations(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SafetySteering_CaptureActivations",
            display_name="Capture Activations",
            category=CATEGORY,
            description="Generates every prompt of a set and stores the model's hidden states, the mean and those of a "
            "few tokens, in a folder under the output directory. Stop it at any time; the next run continues.",
            search_aliases=["safety", "steering", "hidden states", "extract", "REINS"],
            inputs=[
                io.Model.Input("model", tooltip="The model to capture, unsteered."),
                io.Clip.Input("clip", tooltip="The model's text encoder."),
                SafetyPromptsType.Input("prompts", tooltip="From Load Safety Prompts."),
                empty_latent(),
                io.String.Input(
                    "folder",
                    default="my_model",
                    tooltip="Name of the folder under output/safety_activations. With the same name and settings a "
                    "stopped capture continues.",
                ),
                io.String.Input(
                    "hook_points",
                    default="all",
                    tooltip="Which hook points to capture: all, a depth such as 0.5, a range of depths such as "
                    "0.25-0.75, names such as block.blocks.15.image and conditioning, separated by commas, or "
                    "cross_attention: what every block reads from the text.",
                ),
                io.Int.Input(
                    "sigma_bins",
                    default=1,
                    min=1,
                    max=64,
                    tooltip="Number of noise levels that are stored separately. The steps are divided among them.",
                ),
                *sampling_widgets(),
                *sampling_links(),
                *_of_pooling(),
                *_of_labels(),
            ],
            outputs=[SafetyActivationsType.Output("activations", tooltip="Connect to Fit Safety Direction.")],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, folder: str, **inputs: Any) -> list[str]:
        """Changes when a capture was stopped or deleted, so that the node runs again and continues."""
        return shards_of(folder)

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
        pooling: str = MEAN,
        branch: str = BRANCHES[0],
        labels: str = PROMPT,
        judge: Any = None,
        vae: io.Vae.Type | None = None,
        **widgets: Any,
    ) -> io.NodeOutput:
        activations = capture_prompts(
            model,
            clip,
            prompts,
            Sampling(latent, **widgets),
            hook_points,
            sigma_bins,
            activations_path(folder),
            branch=branch,
            pooling=pooling,
            labels=Labels(labels, judge, vae),
        )
        return io.NodeOutput(activations, ui=ui.PreviewText(_summary(activations)))


def _of_pooling() -> list[Any]:
    return [
        io.Combo.Input(
            "pooling",
            options=list(POOLINGS),
            default=MEAN,
            optional=True,
            tooltip="What is stored of each video. mean: the mean over its tokens. per_frame: one mean per frame, for "
            "content that is not in every frame. text_tokens: the mean over the prompt's tokens inside the model, if "
            "it has them.",
        ),
        io.Combo.Input(
            "branch",
            options=list(BRANCHES),
            default=BRANCHES[0],
            optional=True,
            tooltip="Which branch of guidance to capture: the prompt's, the negative prompt's, or the mean of both.",
        ),
    ]


def _of_labels() -> list[Any]:
    return [
        io.Combo.Input(
            "labels",
            options=list(RULES),
            default=PROMPT,
            optional=True,
            tooltip="What decides whether a video is unsafe. prompt: its prompt. judge: the judge's verdict. agree: "
            "both; videos on which they differ are not used for fitting.",
        ),
        SafetyJudgeType.Input("judge", optional=True, tooltip="From Safety Judge. Only for labels judge and agree."),
        io.Vae.Input("vae", optional=True, tooltip="The model's VAE. Decodes the videos for the judge."),
    ]


def _summary(activations: Activations) -> str:
    rows, source = activations.rows(), activations.source
    counts = Counter(row.label for row in rows)
    found = ", ".join(f"{count} {label}" for label, count in sorted(counts.items()))
    kind = "frames" if any(row.video for row in rows) else "videos"
    size = f"{activations.bytes_on_disk / 1e6:.1f} MB on disk"
    return f"{len(rows)} {kind} ({found}); hook points: {len(source.hook_points)}; noise levels: {source.bins}; {size}"
