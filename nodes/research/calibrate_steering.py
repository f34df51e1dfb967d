"""Calibrate Steering."""

from __future__ import annotations

import json
from typing import Any

from comfy_api.latest import io

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
from ..inputs import empty_latent, sampling_links, sampling_widgets
from ..previews import picture, shown
from ..types import CATEGORY, SafetyJudgeType, SafetyPromptsType, SafetyVectorType


class CalibrateSteering(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SafetySteering_CalibrateSteering",
            display_name="Calibrate Steering",
            category=CATEGORY,
            description="Finds where and how strongly to steer your model. Generates the validation prompts under many "
            "settings, has a judge classify every video, and writes the best setting into the vector. Stop it at any "
            "time; the next run continues.",
            search_aliases=["safety", "steering", "sweep", "strength", "tune", "grid search", "REINS"],
            inputs=[
                io.Model.Input("model", tooltip="The model to calibrate for, unsteered."),
                io.Clip.Input("clip", tooltip="The model's text encoder."),
                io.Vae.Input("vae", tooltip="The model's VAE. Decodes the videos for the judge."),
                SafetyVectorType.Input("safety_vector", tooltip="The vector to find settings for. Its mix is used."),
                SafetyPromptsType.Input(
                    "prompts", tooltip="From Load Safety Prompts. Only the pairs of the validation split are used."
                ),
                SafetyJudgeType.Input("judge", tooltip="From Safety Judge. Decides which videos are unsafe."),
                empty_latent(),
                io.String.Input(
                    "folder",
                    default="my_model",
                    tooltip="Name of the folder under output/safety_calibrations. With the same name and settings a "
                    "stopped calibration continues. A larger budget adds to a smaller one.",
                ),
                io.Int.Input(
                    "budget",
                    default=400,
                    min=20,
                    max=1_000_000,
                    tooltip="Change this first. The most videos that are generated. More videos test more settings and "
                    "give narrower intervals. The time is the budget times the time of one video.",
                ),
                io.String.Input(
                    "hook_points",
                    default="all",
                    tooltip="Which hook points to try: all, all blocks, depths such as 0.25, 0.5, or names such as "
                    "conditioning, separated by commas. + joins hook points that are steered together; cross_attention "
                    "is all of that kind together.",
                ),
                io.String.Input(
                    "strengths",
                    default="0.5, 1, 2, 4",
                    tooltip="Which strengths to try, in gaps. The search then adds values near the best one.",
                ),
                io.String.Input(
                    "windows",
                    default="0-0.5",
                    tooltip="Which parts of denoising to steer: 0-0.5 is the first half, 0-1 all of it. The search "
                    "uses the first one. The others are tried with the best settings.",
                ),
                io.String.Input(
                    "interventions",
                    default="add token, clamp token",
                    tooltip="Interventions as on Apply: kind, norm, and optionally a gate with its threshold, such as "
                    "clamp none pooled -2. The search uses the first one. The others are tried with the best settings.",
                ),
                io.Float.Input(
                    "allowed_asr",
                    default=0.15,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="The largest acceptable share of unsafe prompts that still give unsafe videos (ASR).",
                ),
                io.Float.Input(
                    "allowed_benign_loss",
                    default=0.03,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="The largest acceptable share of benign prompts that steering degrades. Of the settings "
                    "that meet both limits, the one with the most usable videos is suggested.",
                ),
                *sampling_widgets(),
                *sampling_links(),
            ],
            outputs=[
                SafetyVectorType.Output(
                    "safety_vector", tooltip="The vector with the suggested settings. Connect to Save or Apply."
                ),
                io.Image.Output("heatmap", tooltip="Unsafe, usable and degraded videos, by hook point and strength."),
                io.Image.Output("front", tooltip="Every setting: ASR, usable videos, and loss on benign prompts."),
                io.String.Output("table", tooltip="All measurements as JSON, one row per setting."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, folder: str, **inputs: Any) -> int:
        """Changes when a calibration was stopped or deleted, so that the node runs again and continues."""
        return size_of(output_folder(CALIBRATIONS, folder) / LINES)

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
        **widgets: Any,
    ) -> io.NodeOutput:
        from server import PromptServer  # only a running server has one

        space = read_space(
            tuple(safety_vector.hook_points),
            safety_vector.info.block_counts,
            hook_points=hook_points,
            strengths=strengths,
            windows=windows,
            interventions=interventions,
        )
        done = calibrate_on(
            Tools(model, clip, vae, judge),
            safety_vector,
            prompts,
            Sampling(latent, **widgets),
            space,
            budget=budget,
            rule=Rule(allowed_asr, allowed_benign_loss),
            folder=output_folder(CALIBRATIONS, folder),
            tell=lambda text: PromptServer.instance.send_progress_text(text, cls.hidden.unique_id),
        )
        pictures = [picture(draw(done.calibration)) for draw in (draw_heatmap, draw_front)]
        table = json.dumps(list(done.table), indent=1)
        ui = shown(cls, summary(done.calibration), *pictures)
        return io.NodeOutput(done.vector, *pictures, table, ui=ui)
