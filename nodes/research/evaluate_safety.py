"""Evaluate Safety."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io, ui

from ...bridge.folders import output_folder, size_of
from ...bridge.judging.evaluation import Pair, describe_steering, evaluate_prompts
from ...bridge.sampling.sampling import Sampling
from ...safety_steering.evaluation.rates import evaluate
from ...safety_steering.evaluation.report import as_lines, save_evaluation
from ...safety_steering.evaluation.verdict_folder import LINES
from ...safety_steering.judges.verdict import Judge
from ...safety_steering.prompts.prompt_set import PromptSet
from ..inputs import sampling_links, sampling_widgets
from ..types import CATEGORY, SafetyJudgeType, SafetyPromptsType

ALL = "all"
EVALUATIONS = "safety_evaluations"


class EvaluateSafety(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SafetySteering_EvaluateSafety",
            display_name="Evaluate Safety",
            category=CATEGORY,
            description="Generates unsafe prompts and their safe twins without and with steering, shows every video to "
            "a judge, and says what steering prevents and what it costs. Stop it whenever you like; it goes on where "
            "it was.",
            search_aliases=[
                "safety",
                "steering",
                "nsfw",
                "guardrail",
                "benchmark",
                "measure",
                "ASR",
                "FID",
                "KID",
                "CLIP-Score",
                "REINS",
            ],
            inputs=[
                io.Model.Input("model", tooltip="The model without steering, as it comes from the loader."),
                io.Model.Input("steered_model", tooltip="The same model behind Apply Safety Steering."),
                io.Clip.Input("clip", tooltip="The model's text encoder."),
                io.Vae.Input("vae", tooltip="The model's VAE: judges look at pictures."),
                SafetyPromptsType.Input("prompts", tooltip="From Load Safety Prompts: pairs of unsafe and safe ones."),
                SafetyJudgeType.Input("judge", tooltip="From Safety Judge."),
                io.Latent.Input("latent", tooltip="An empty latent of the size to generate. Small and short will do."),
                io.String.Input(
                    "folder",
                    default="my_evaluation",
                    tooltip="Name of the folder under output/safety_evaluations. The same name and settings go on with "
                    "an evaluation that was stopped.",
                ),
                io.Combo.Input(
                    "split",
                    options=["test", "validation", "train", ALL],
                    default="test",
                    tooltip="test: prompts that no direction and no setting was chosen on. Read it once, at the end.",
                ),
                io.Int.Input(
                    "limit",
                    default=0,
                    min=0,
                    max=200_000,
                    tooltip="At most this many pairs, evenly over the categories. 0: all of them. Each pair is four "
                    "videos.",
                ),
                *sampling_widgets(),
                *sampling_links(),
            ],
            outputs=[
                io.String.Output("table", tooltip="The evaluation as a Markdown table."),
                io.String.Output("csv", tooltip="The same as CSV, one line a model and category."),
                io.Image.Output("picture", tooltip="The same as a chart."),
            ],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, folder: str, **inputs: Any) -> int:
        # an evaluation that was stopped or deleted is taken up again
        return size_of(output_folder(EVALUATIONS, folder) / LINES)

    @classmethod
    def execute(
        cls,
        model: io.Model.Type,
        steered_model: io.Model.Type,
        clip: io.Clip.Type,
        vae: io.Vae.Type,
        prompts: PromptSet,
        judge: Judge,
        latent: dict[str, Any],
        folder: str,
        split: str,
        limit: int,
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
        chosen = prompts if split == ALL else prompts.in_split(split)
        chosen = chosen.limited(limit, seed) if limit else chosen
        sampling = Sampling(
            latent, negative, steps, cfg, sampler_name, scheduler, seed, template, sampler, sigmas, guider
        )
        models = Pair(model, steered_model)
        path = output_folder(EVALUATIONS, folder)
        cases = evaluate_prompts(models, clip, vae, chosen, sampling, judge, path)
        evaluation = evaluate(cases, describe_steering(models, sampling, chosen, judge))
        saved = save_evaluation(evaluation, path, f"Evaluate Safety in the folder {folder}", [seed])
        picture = torch.from_numpy(saved.picture).float().div(255)[None]
        previews = {**ui.PreviewImage(picture, cls=cls).as_dict(), **ui.PreviewText(as_lines(evaluation)).as_dict()}
        return io.NodeOutput(saved.table, saved.csv, picture, ui=previews)
