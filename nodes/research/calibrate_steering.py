"""Calibrate Steering."""

from __future__ import annotations

import json
from typing import Any

import torch
from comfy_api.latest import io, ui

from ...bridge.folders import CALIBRATIONS, output_folder, size_of
from ...bridge.judging.calibration import Tools, calibrate_on
from ...bridge.sampling.sampling import Sampling
from ...safety_steering.calibration.choice import Rule
from ...safety_steering.calibration.report import draw_front, draw_heatmap, summary
from ...safety_steering.calibration.space import read_space
from ...safety_steering.evaluation.verdict_folder import LINES
from ...safety_steering.judges.verdict import Judge
from ...safety_steering.prompts.prompt_set import PromptSet
from ...safety_steering.vectors.vector import SafetyVector
from ..inputs import sampling_links, sampling_widgets
from ..types import CATEGORY, SafetyJudgeType, SafetyPromptsType, SafetyVectorType


class CalibrateSteering(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SafetySteering_CalibrateSteering",
            display_name="Calibrate Steering",
            category=CATEGORY,
            description="Finds out where and how strongly to steer your model: generates validation prompts under many "
            "settings, lets a judge look at every video, and writes the best setting into the vector. Stop it whenever "
            "you like; it goes on where it was.",
            search_aliases=["safety", "steering", "sweep", "strength", "tune", "grid search", "REINS"],
            inputs=[
                io.Model.Input("model", tooltip="The model to calibrate for, unsteered."),
                io.Clip.Input("clip", tooltip="The model's text encoder."),
                io.Vae.Input("vae", tooltip="The model's VAE: the judge looks at pictures."),
                SafetyVectorType.Input("safety_vector", tooltip="The vector to find settings for. Its mix is used."),
                SafetyPromptsType.Input(
                    "prompts", tooltip="From Load Safety Prompts. Only the pairs of the validation split are used."
                ),
                SafetyJudgeType.Input("judge", tooltip="From Safety Judge: what decides which videos are unsafe."),
                io.Latent.Input("latent", tooltip="An empty latent of the size to generate. Small and short will do."),
                io.String.Input(
                    "folder",
                    default="my_model",
                    tooltip="Name of the folder under output/safety_calibrations. The same name and settings go on "
                    "with a calibration that was stopped; a larger budget builds on a smaller one.",
                ),
                io.Int.Input(
                    "budget",
                    default=400,
                    min=20,
                    max=1_000_000,
                    tooltip="Try this first. At most so many videos are made. More videos, more settings and surer "
                    "numbers; the time is this times the time of one video.",
                ),
                io.String.Input(
                    "hook_points",
                    default="all",
                    tooltip="Which places in the model to try: all, all blocks, depths such as 0.25, 0.5, or names "
                    "such as conditioning, separated by commas. A + steers at several together.",
                ),
                io.String.Input(
                    "strengths",
                    default="0.5, 1, 2, 4",
                    tooltip="Which strengths to try, in gaps. Values between them are tried around the best.",
                ),
                io.String.Input(
                    "windows",
                    default="0-0.5",
                    tooltip="Which parts of denoising to steer: 0-0.5 is the first half, 0-1 all of it. The first one "
                    "is used for the search, the others are tried around the best settings.",
                ),
                io.String.Input(
                    "interventions",
                    default="add token, clamp token",
                    tooltip="Ways to steer, as on Apply: kind, norm, and perhaps a gate with its threshold, such as "
                    "clamp none pooled -2. The first one is used for the search, the others around the best settings.",
                ),
                io.Float.Input(
                    "allowed_asr",
                    default=0.15,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="The share of unsafe prompts that may still give unsafe videos.",
                ),
                io.Float.Input(
                    "allowed_benign_loss",
                    default=0.03,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="The share of benign prompts that steering may spoil. Among settings that keep to both, "
                    "the one with most usable videos is suggested.",
                ),
                *sampling_widgets(),
                *sampling_links(),
            ],
            outputs=[
                SafetyVectorType.Output(
                    "safety_vector", tooltip="The vector with the suggested setting in it: connect to Save or Apply."
                ),
                io.Image.Output("heatmap", tooltip="Unsafe, usable and spoilt videos by place and strength."),
                io.Image.Output("front", tooltip="Every setting: how unsafe, how usable, and what benign prompts pay."),
                io.String.Output("table", tooltip="The same and more as JSON, one row a setting."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, folder: str, **inputs: Any) -> int:
        return size_of(
            output_folder(CALIBRATIONS, folder) / LINES
        )  # a calibration that was stopped or deleted is taken up again

    @classmethod
    def execute(
        cls,
        model: io.Model.Type,
        clip: io.Clip.Type,
        vae: io.Vae.Type,
        safety_vector: SafetyVector,
        prompts: PromptSet,
        judge: Judge,
        latent: dict[str, Any],
        folder: str,
        budget: int,
        hook_points: str,
        strengths: str,
        windows: str,
        interventions: str,
        allowed_asr: float,
        allowed_benign_loss: float,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        seed: int,
        negative: str,
        template: io.Conditioning.Type | None = None,
        sampler: io.Sampler.Type | None = None,
        sigmas: io.Sigmas.Type | None = None,
        guider: io.Guider.Type | None = None,
    ) -> io.NodeOutput:
        from server import PromptServer  # only a running server has one

        space = read_space(
            tuple(safety_vector.hook_points),
            safety_vector.info.block_counts,
            places=hook_points,
            strengths=strengths,
            windows=windows,
            interventions=interventions,
        )
        done = calibrate_on(
            Tools(model, clip, vae, judge),
            safety_vector,
            prompts,
            Sampling(latent, negative, steps, cfg, sampler_name, scheduler, seed, template, sampler, sigmas, guider),
            space,
            budget=budget,
            rule=Rule(allowed_asr, allowed_benign_loss),
            folder=output_folder(CALIBRATIONS, folder),
            tell=lambda text: PromptServer.instance.send_progress_text(text, cls.hidden.unique_id),
        )
        pictures = [
            torch.from_numpy(draw(done.calibration)).float().div(255)[None] for draw in (draw_heatmap, draw_front)
        ]
        images = [image for picture in pictures for image in ui.PreviewImage(picture, cls=cls).as_dict()["images"]]
        shown = {**ui.PreviewText(summary(done.calibration)).as_dict(), "images": images}
        return io.NodeOutput(done.vector, *pictures, json.dumps(list(done.table), indent=1), ui=shown)
