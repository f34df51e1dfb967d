"""Fit Safety Direction."""

from __future__ import annotations

import json
from typing import Any

import comfy.utils
from comfy_api.latest import io

from ...bridge.capture.benign import benign_states
from ...safety_steering.activations import Activations
from ...safety_steering.directions.charts import draw_separability
from ...safety_steering.directions.fitting import LABELS, METHODS, FitSettings
from ...safety_steering.directions.methods import KERNELS
from ...safety_steering.directions.native import fit_vector
from ...safety_steering.prompts.prompt_set import PromptSet
from ...safety_steering.vectors.card import describe
from ...safety_steering.vectors.vector import DIFFERING, POOLED
from ..inputs import chosen, names_in
from ..previews import picture, shown
from ..types import CATEGORY, SafetyActivationsType, SafetyPromptsType, SafetyVectorType

HALVES, PERMUTATIONS = 20, 200


class FitSafetyDirection(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SafetySteering_FitSafetyDirection",
            display_name="Fit Safety Direction",
            category=CATEGORY,
            description="Fits the direction from unsafe to safe at every captured hook point, and shows how well it "
            "separates them by depth.",
            search_aliases=["safety", "steering", "train", "REINS", "supervised PCA", "probe"],
            inputs=[
                SafetyActivationsType.Input("activations", tooltip="From Capture Activations."),
                io.DynamicCombo.Input(
                    "method",
                    options=[
                        io.DynamicCombo.Option("mean_difference", []),
                        io.DynamicCombo.Option("supervised_pca", _supervised_pca_inputs()),
                        io.DynamicCombo.Option("shrunk_lda", [_shrinkage()]),
                        io.DynamicCombo.Option("logistic_probe", [_inverse_penalty()]),
                    ],
                    tooltip="mean_difference: the usual one; for two classes it equals Supervised PCA. supervised_pca: "
                    "categories share their common components. shrunk_lda: if a few channels dominate. logistic_probe: "
                    "for comparison.",
                ),
                io.Boolean.Input(
                    "standardise",
                    default=False,
                    tooltip="Gives every channel the same weight. Try it if the table's outlier_share is near 1.",
                ),
                io.Boolean.Input(
                    "regress_length",
                    default=False,
                    tooltip="Removes the part that a prompt's length explains. Use it if unsafe prompts are longer.",
                ),
                io.Int.Input(
                    "sigma_bins",
                    default=0,
                    min=0,
                    max=64,
                    tooltip="Number of noise levels with their own direction. 0: as captured. 1: one direction for "
                    "all.",
                ),
                io.String.Input(
                    "categories", default="", tooltip="Which to fit, separated by commas. Empty: all of them."
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**32 - 1,
                    tooltip="Seed of the statistics: random halves and permutations.",
                ),
                io.Combo.Input(
                    "tokens",
                    options=[DIFFERING, POOLED],
                    default=DIFFERING,
                    optional=True,
                    tooltip="differing: the direction of the tokens by which an unsafe prompt differs from its safe "
                    "twin; the best to steer with. pooled: of the mean over all tokens. Prompts without a twin are "
                    "always pooled.",
                ),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="The text encoder that the capture used. The detectors then also learn what harmless "
                    "prompts of other kinds look like, from 1000 bundled captions, and open less often on such.",
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="Only for models that transform the prompt's states (LTX-2): the captured model, for clip.",
                ),
                SafetyPromptsType.Input(
                    "benign_prompts",
                    optional=True,
                    tooltip="Harmless prompts like those you use, from Load Safety Prompts; clip reads them too. "
                    "Nothing checks that they are harmless.",
                ),
            ],
            outputs=[
                SafetyVectorType.Output("safety_vector", tooltip="Connect to Apply or Save Safety Vector."),
                io.Image.Output("chart", tooltip="How well safe and unsafe are separated, by depth."),
                io.String.Output(
                    "table", tooltip="All statistics as JSON, one row per hook point, category and noise level."
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        activations: Activations,
        standardise: bool,
        regress_length: bool,
        sigma_bins: int,
        categories: str,
        seed: int,
        method: dict[str, Any] | None = None,
        tokens: str = DIFFERING,
        clip: io.Clip.Type | None = None,
        model: io.Model.Type | None = None,
        benign_prompts: PromptSet | None = None,
    ) -> io.NodeOutput:
        settings = FitSettings(
            **chosen(method, "method", METHODS),
            standardise=standardise,
            regress_length=regress_length,
            halves=HALVES,
            permutations=PERMUTATIONS,
            seed=seed,
            tokens=tokens,
        )
        benign = benign_states(activations.source, clip, model, benign_prompts)
        bar = comfy.utils.ProgressBar(len(activations.source.hook_points))
        fitted = fit_vector(
            activations,
            settings,
            categories=names_in(categories),
            bins=sigma_bins,
            benign=benign,
            progress=bar.update_absolute,
        )
        chart, table = picture(draw_separability(fitted.table)), json.dumps(fitted.table, indent=1)
        return io.NodeOutput(fitted.vector, chart, table, ui=shown(cls, describe(fitted.vector), chart))


def _supervised_pca_inputs() -> list[Any]:
    return [
        io.Combo.Input(
            "labels",
            options=list(LABELS),
            default="categories",
            tooltip="categories: a direction for each category. binary: one direction, safe against unsafe, for all.",
        ),
        io.Combo.Input(
            "kernel",
            options=list(KERNELS),
            default="delta",
            tooltip="delta: each set of categories is a class. linear: each category against the rest.",
        ),
        io.Int.Input(
            "components",
            default=0,
            min=0,
            max=64,
            tooltip="How many shared directions to keep; 0 keeps all, 1 gives one for every category.",
        ),
    ]


def _shrinkage() -> io.Float.Input:
    return io.Float.Input(
        "shrinkage", default=1.0, min=0.001, max=1000.0, step=0.1, tooltip="Higher is nearer to mean_difference."
    )


def _inverse_penalty() -> io.Float.Input:
    return io.Float.Input(
        "inverse_penalty", default=1.0, min=0.0001, max=1000.0, step=0.1, tooltip="Higher fits the prompts closer."
    )
