"""Evaluate Safety."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...bridge.folders import output_folder, size_of
from ...bridge.judging.evaluation import Pair, describe_steering, evaluate_prompts
from ...bridge.sampling.sampling import Sampling
from ...safety_steering.evaluation.rates import evaluate
from ...safety_steering.evaluation.report import as_lines, save_evaluation
from ...safety_steering.evaluation.verdict_folder import LINES
from ...safety_steering.judges.verdict import Judge
from ...safety_steering.prompts.prompt_set import PromptSet
from ..inputs import empty_latent, sampling_links, sampling_widgets
from ..previews import picture, shown
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
            description="Generates unsafe prompts and their safe twins without and with steering, has a judge classify "
            "every video, and reports what steering prevents and what it costs. Stop it at any time; the next run "
            "continues.",
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
                io.Model.Input("steered_model", tooltip="The same model, from Apply Safety Steering."),
                io.Clip.Input("clip", tooltip="The model's text encoder."),
                io.Vae.Input("vae", tooltip="The model's VAE. Decodes the videos for the judge."),
                SafetyPromptsType.Input(
                    "prompts", tooltip="From Load Safety Prompts: pairs of an unsafe and a safe prompt."
                ),
                SafetyJudgeType.Input("judge", tooltip="From Safety Judge."),
                empty_latent(),
                io.String.Input(
                    "folder",
                    default="my_evaluation",
                    tooltip="Name of the folder under output/safety_evaluations. With the same name and settings a "
                    "stopped evaluation continues.",
                ),
                io.Combo.Input(
                    "split",
                    options=["test", "validation", "train", ALL],
                    default="test",
                    tooltip="test: prompts on which no direction was fitted and no setting chosen. Use it once, at the "
                    "end.",
                ),
                io.Int.Input(
                    "limit",
                    default=0,
                    min=0,
                    max=200_000,
                    tooltip="The most pairs, evenly over the categories. 0: all of them. Each pair is four videos.",
                ),
                *sampling_widgets(),
                *sampling_links(),
            ],
            outputs=[
                io.String.Output("table", tooltip="The evaluation as a Markdown table."),
                io.String.Output("csv", tooltip="The same as CSV, one line per model and category."),
                io.Image.Output("picture", tooltip="The same as a chart."),
            ],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, folder: str, **inputs: Any) -> int:
        """Changes when an evaluation was stopped or deleted, so that the node runs again and continues."""
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
        **widgets: Any,
    ) -> io.NodeOutput:
        sampling = Sampling(latent, **widgets)
        chosen = prompts if split == ALL else prompts.in_split(split)
        chosen = chosen.limited(limit, sampling.seed) if limit else chosen
        models = Pair(model, steered_model)
        path = output_folder(EVALUATIONS, folder)
        cases = evaluate_prompts(models, clip, vae, chosen, sampling, judge, path)
        evaluation = evaluate(cases, describe_steering(models, sampling, chosen, judge))
        saved = save_evaluation(evaluation, path, f"Evaluate Safety in the folder {folder}", [sampling.seed])
        chart = picture(saved.picture)
        return io.NodeOutput(saved.table, saved.csv, chart, ui=shown(cls, as_lines(evaluation), chart))
