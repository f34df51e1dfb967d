"""Fit Safety Direction."""

from __future__ import annotations

import json
from typing import Any

import comfy.utils
import torch
from comfy_api.latest import io, ui

from ...safety_steering.activations import Activations
from ...safety_steering.directions.charts import draw_separability
from ...safety_steering.directions.fitting import LABELS, METHODS, FitSettings
from ...safety_steering.directions.methods import KERNELS
from ...safety_steering.directions.native import fit_vector
from ...safety_steering.errors import SafetySteeringError
from ...safety_steering.vectors.vector import describe
from ..types import CATEGORY, SafetyActivationsType, SafetyVectorType

HALVES, PERMUTATIONS = 20, 200


class FitSafetyDirection(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SafetySteering_FitSafetyDirection",
            display_name="Fit Safety Direction",
            category=CATEGORY,
            description="Finds the direction from unsafe to safe at every captured place in the model, and shows how "
            "well it tells them apart by depth.",
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
                    tooltip="mean_difference: the usual one; for safe against unsafe it is exactly Supervised PCA. "
                    "supervised_pca: lets several categories share what they have in common. shrunk_lda: if a few "
                    "channels drown the rest. logistic_probe: for comparison.",
                ),
                io.Boolean.Input(
                    "standardise",
                    default=False,
                    tooltip="Gives every channel the same weight. Try it if the table's outlier_share is near 1.",
                ),
                io.Boolean.Input(
                    "regress_length",
                    default=False,
                    tooltip="Takes out what comes from a prompt's length. Use it if unsafe prompts are longer.",
                ),
                io.Int.Input(
                    "sigma_bins",
                    default=0,
                    min=0,
                    max=64,
                    tooltip="Directions for how many noise levels: 0 as captured, 1 a single one for all.",
                ),
                io.String.Input(
                    "categories", default="", tooltip="Which to fit, separated by commas. Empty: all of them."
                ),
                io.Int.Input(
                    "seed", default=0, min=0, max=2**32 - 1, tooltip="For the evidence: halves and permutations."
                ),
            ],
            outputs=[
                SafetyVectorType.Output("safety_vector", tooltip="Connect to Apply or Save Safety Vector."),
                io.Image.Output("chart", tooltip="How well safe and unsafe are told apart, by depth."),
                io.String.Output("table", tooltip="The same and more as JSON, one row a place, category and noise."),
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
    ) -> io.NodeOutput:
        if method is None:  # core leaves out a choice that it does not know
            raise SafetySteeringError(f"The method is none of {', '.join(METHODS)}. Choose one of them.")
        settings = FitSettings(
            **method,
            standardise=standardise,
            regress_length=regress_length,
            halves=HALVES,
            permutations=PERMUTATIONS,
            seed=seed,
        )
        bar = comfy.utils.ProgressBar(len(activations.source.hook_points))
        fitted = fit_vector(
            activations,
            settings,
            categories=[name.strip() for name in categories.split(",") if name.strip()],
            bins=sigma_bins,
            progress=lambda done, total: bar.update_absolute(done, total),
        )
        picture = torch.from_numpy(draw_separability(fitted.table)).float().div(255)[None]
        shown = ui.PreviewText(describe(fitted.vector)).as_dict()
        previews = {**ui.PreviewImage(picture, cls=cls).as_dict(), **shown}
        return io.NodeOutput(fitted.vector, picture, json.dumps(fitted.table, indent=1), ui=previews)


def _supervised_pca_inputs() -> list[Any]:
    return [
        io.Combo.Input(
            "labels",
            options=list(LABELS),
            default="categories",
            tooltip="categories: tells them apart. binary: one direction, safe against unsafe, for all of them.",
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
