"""Apply Safety Steering."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ..bridge.browser import trace_teller
from ..bridge.models.vector_fit import notices
from ..bridge.steering.apply import apply_steering
from ..bridge.steering.branches import BRANCHES
from ..bridge.steering.settings import SteeringSettings
from ..safety_steering.hook_point import select_hook_points
from ..safety_steering.steering.interventions import GATES, INTERVENTIONS, NORMS, Intervention
from ..safety_steering.vectors.vector import SafetyVector
from .inputs import chosen
from .types import CATEGORY, SEARCH_WORDS, SafetyVectorType


def _threshold() -> io.Float.Input:
    return io.Float.Input(
        "threshold",
        default=-1.0,
        min=-10.0,
        max=10.0,
        step=0.1,
        tooltip="Acts where the state is below this, in standard deviations of benign prompts. -1 leaves most benign "
        "prompts unchanged; nearer to 0 acts on more.",
    )


class ApplySafetySteering(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SafetySteering_ApplySafetySteering",
            display_name="Apply Safety Steering",
            category=CATEGORY,
            description="Steers a model's hidden states towards safe content while it generates. Put it between the "
            "model loader and the sampler. Stops the run with an error if it should have acted and did not.",
            search_aliases=[*SEARCH_WORDS, "nudity", "activation steering", "REINS"],
            inputs=[
                io.Model.Input("model", tooltip="The model to steer. It is not changed; the output is a steered copy."),
                SafetyVectorType.Input("safety_vector", tooltip="From Load Safety Vector."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-50.0,
                    max=50.0,
                    step=0.05,
                    tooltip="Change this first. How far to move, in gaps between unsafe and safe. 0 is off (bit for "
                    "bit), 1 is the usual start, 2 to 4 is strong. Negative makes results less safe.",
                ),
                io.Combo.Input(
                    "intervention",
                    options=list(INTERVENTIONS),
                    default="add",
                    tooltip="add: moves every state in the same direction. ablate: removes the difference between safe "
                    "and unsafe. clamp: moves only states on the unsafe side, so benign prompts change least.",
                ),
                io.Combo.Input(
                    "norm",
                    options=list(NORMS),
                    default="token",
                    tooltip="Keeps the norm of the hidden states: of each token (token), of each channel (channel), or "
                    "not at all (none). If colours are oversaturated, use token.",
                ),
                io.Float.Input(
                    "window_start",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="When steering begins, as a fraction of denoising: 0 is pure noise. Early steps matter "
                    "most.",
                ),
                io.Float.Input(
                    "window_end",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="When steering ends. 0.5 is the usual. Use 1 for second stages, refiners and low denoise, "
                    "because all their steps are late.",
                ),
                io.Combo.Input(
                    "branch",
                    options=list(BRANCHES),
                    default="both",
                    tooltip="Which branch of guidance to steer. both is stable; positive alone is amplified by cfg.",
                ),
                io.DynamicCombo.Input(
                    "gate",
                    options=[
                        io.DynamicCombo.Option("off", []),
                        io.DynamicCombo.Option("pooled", [_threshold()]),
                        io.DynamicCombo.Option("token", [_threshold()]),
                    ],
                    tooltip="Acts only where unsafe content is detected. off: always acts. pooled: decides once for "
                    "the whole picture or video. token: decides for each token.",
                ),
                io.String.Input(
                    "hook_points",
                    default="auto",
                    tooltip="Where in the model to steer. auto: the vector's suggestion. Or: all, a depth such as 0.5, "
                    "or names such as block.blocks.15.image, separated by commas.",
                ),
            ],
            outputs=[io.Model.Output("model", tooltip="The steered model. Connect to the sampler.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model: io.Model.Type,
        safety_vector: SafetyVector,
        strength: float,
        intervention: str,
        norm: str,
        window_start: float,
        window_end: float,
        branch: str,
        hook_points: str,
        gate: dict[str, Any] | None = None,
    ) -> io.NodeOutput:
        gate, info = chosen(gate, "gate", GATES), safety_vector.info
        settings = SteeringSettings(
            strength=strength,
            hook_points=select_hook_points(
                hook_points, safety_vector.hook_points, info.block_counts, info.suggestion.hook_points
            ),
            intervention=Intervention(intervention, norm, gate["gate"], gate.get("threshold", -1.0)),
            window=(window_start, window_end),
            branch=branch,
        )
        steered = apply_steering(model, safety_vector, settings, on_trace=trace_teller(cls.hidden.unique_id))
        return io.NodeOutput(steered, ui=ui.PreviewText(_shown(model, safety_vector, settings)))


def _shown(model: io.Model.Type, vector: SafetyVector, settings: SteeringSettings) -> str:
    """What the node shows: where it steers, and warnings."""
    if settings.strength == 0 or not any(vector.mix.values()):
        return "Off: the strength or every weight of the mix is 0."
    points = settings.hook_points
    where = ", ".join(points[:3]) + (f" and {len(points) - 3} more" if len(points) > 3 else "")
    warnings = notices(vector, points, settings.strength, model)
    return "\n".join([f"Steers at {where}.", *(f"Warning: {sentence}" for sentence in warnings)])
