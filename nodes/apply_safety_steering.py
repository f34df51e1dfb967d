"""Apply Safety Steering."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ..bridge.browser import trace_teller
from ..bridge.models.vector_fit import notices
from ..bridge.steering.branches import BRANCHES
from ..bridge.steering.encoder import steer
from ..bridge.steering.settings import SteeringSettings, recommended_settings
from ..safety_steering.hook_point import AUTO, select_hook_points
from ..safety_steering.steering.interventions import GATES, INTERVENTIONS, NORMS, Intervention
from ..safety_steering.vectors.suggestion import (
    CARRIED,
    FALSE_ALARM,
    TOKEN_THRESHOLD,
    describe_choice,
    recommended,
)
from ..safety_steering.vectors.vector import SafetyVector
from . import inputs as common
from .inputs import chosen
from .types import CATEGORY, SEARCH_WORDS, SafetyVectorType

RECOMMENDED, MANUAL = "recommended", "manual"
SETTINGS = (RECOMMENDED, MANUAL)


def _threshold() -> io.Float.Input:
    return io.Float.Input(
        "threshold",
        default=CARRIED.threshold,
        min=-10.0,
        max=10.0,
        step=0.1,
        tooltip="Acts where the state is below this, in standard deviations of benign prompts. Further below 0 leaves "
        "more benign prompts unchanged; nearer to 0 acts on more.",
    )


def _false_alarm() -> io.Float.Input:
    return io.Float.Input(
        "false_alarm",
        default=FALSE_ALARM,
        min=0.001,
        max=0.5,
        step=0.001,
        tooltip="The share of harmless prompts that may be taken for unsafe ones. 0.01 is one in a hundred. Smaller "
        "leaves more harmless prompts unchanged and misses more unsafe ones.",
    )


def _token_threshold() -> io.Float.Input:
    return io.Float.Input(
        "token_threshold",
        default=TOKEN_THRESHOLD,
        min=-10.0,
        max=10.0,
        step=0.1,
        tooltip="In a prompt that is taken for unsafe, acts only on tokens below this, in standard deviations of "
        "harmless ones: on the words that name the thing. 10 acts on all tokens.",
    )


class ApplySafetySteering(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SafetySteering_ApplySafetySteering",
            display_name="Apply Safety Steering",
            category=CATEGORY,
            description="Steers a model's hidden states towards safe content while it generates. Put it between the "
            "model loader and the sampler. Stops the run with an error if it should have acted and did not. A vector "
            "with hook points encoder.<layer> steers inside the text encoder: connect clip, too.",
            search_aliases=[*SEARCH_WORDS, "nudity", "activation steering", "REINS"],
            inputs=[
                io.Model.Input("model", tooltip="The model to steer. It is not changed; the output is a steered copy."),
                SafetyVectorType.Input("safety_vector", tooltip="From Load Safety Vector."),
                io.DynamicCombo.Input(
                    "settings",
                    options=[
                        io.DynamicCombo.Option(RECOMMENDED, [common.level()]),
                        io.DynamicCombo.Option(MANUAL, []),
                    ],
                    optional=True,
                    tooltip="recommended: as the vector suggests, times level. manual: as set in the widgets below, "
                    "which are read in this case only.",
                ),
                io.Float.Input(
                    "strength",
                    default=CARRIED.strength,
                    min=-50.0,
                    max=50.0,
                    step=0.05,
                    optional=True,
                    tooltip="Change this first. How far to move, in gaps between unsafe and safe. 0 is off (bit for "
                    "bit), 6 to 8 is the usual with clamp, 1 to 4 with add. Negative makes results less safe.",
                ),
                io.Combo.Input(
                    "intervention",
                    options=list(INTERVENTIONS),
                    default=CARRIED.intervention,
                    optional=True,
                    tooltip="add: moves every state in the same direction. ablate: removes the difference between safe "
                    "and unsafe. clamp: moves only states on the unsafe side, so benign prompts change least.",
                ),
                io.Combo.Input(
                    "norm",
                    options=list(NORMS),
                    default=CARRIED.norm,
                    optional=True,
                    tooltip="Keeps the norm of the hidden states: of each token (token), of each channel (channel), or "
                    "not at all (none). If colours are oversaturated, use token.",
                ),
                io.Float.Input(
                    "window_start",
                    default=CARRIED.window[0],
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    tooltip="When steering begins, as a fraction of denoising: 0 is pure noise. Early steps matter "
                    "most.",
                ),
                io.Float.Input(
                    "window_end",
                    default=CARRIED.window[1],
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    tooltip="When steering ends. 1 is the usual. 0.5 keeps more of fine detail, but misses second "
                    "stages, refiners and low denoise, because all their steps are late.",
                ),
                io.Combo.Input(
                    "branch",
                    options=list(BRANCHES),
                    default=CARRIED.branch,
                    optional=True,
                    tooltip="Which branch of guidance to steer. both is stable; positive alone is amplified by cfg.",
                ),
                io.DynamicCombo.Input(
                    "gate",
                    options=[
                        io.DynamicCombo.Option("pooled", [_threshold()]),
                        io.DynamicCombo.Option("prompt", [_false_alarm(), _token_threshold()]),
                        io.DynamicCombo.Option("token", [_threshold()]),
                        io.DynamicCombo.Option("off", []),
                    ],
                    optional=True,
                    tooltip="Acts only where unsafe content is detected. prompt: the vector's detector decides once "
                    "for each prompt. pooled: the state's mean at each place decides. token: each token. off: always.",
                ),
                io.String.Input(
                    "hook_points",
                    default=AUTO,
                    optional=True,
                    tooltip="Where in the model to steer. auto: the vector's suggestion. Or: all, a depth such as 0.5, "
                    "names such as block.blocks.15.image, separated by commas, or cross_attention: what every block "
                    "reads from the text.",
                ),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="The model's text encoder. Needed for vectors that steer inside it (encoder.<layer>).",
                ),
            ],
            outputs=[
                io.Model.Output("model", tooltip="The steered model. Connect to the sampler."),
                io.Clip.Output(
                    "clip",
                    tooltip="The text encoder, steered if the vector steers inside it. Connect to CLIP Text Encode.",
                ),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
            has_intermediate_output=True,  # a cached result's words are told again
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs: object) -> str:
        # the trace of a run is told to this node: a result in the cache of another node would tell that one
        return str(cls.hidden.unique_id)

    @classmethod
    def execute(
        cls,
        model: io.Model.Type,
        safety_vector: SafetyVector,
        strength: float | None = None,
        intervention: str = CARRIED.intervention,
        norm: str = CARRIED.norm,
        window_start: float = CARRIED.window[0],
        window_end: float = CARRIED.window[1],
        branch: str = CARRIED.branch,
        hook_points: str = AUTO,
        gate: dict[str, Any] | None = None,
        settings: dict[str, Any] | None = None,
        clip: io.Clip.Type | None = None,
    ) -> io.NodeOutput:
        if settings is None and not cls._is_sent("settings"):  # a prompt made before there was this choice
            settings = {"settings": RECOMMENDED if strength is None else MANUAL}
        if gate is None and not cls._is_sent("gate"):
            gate = {"gate": CARRIED.gate}
        choice = chosen(settings, "settings", SETTINGS)
        if choice["settings"] == RECOMMENDED:
            level = choice.get("level")  # None if the prompt leaves it out
            found = recommended_settings(safety_vector, 1.0 if level is None else level)
        else:
            info, gate = safety_vector.info, chosen(gate, "gate", GATES)
            found = SteeringSettings(
                strength=CARRIED.strength if strength is None else strength,
                hook_points=select_hook_points(
                    hook_points, safety_vector.hook_points, info.block_counts, info.suggestion.hook_points
                ),
                intervention=_intervention(intervention, norm, gate),
                window=(window_start, window_end),
                branch=branch,
            )
        steered, read = steer(model, clip, safety_vector, found, trace_teller(cls.hidden.unique_id))
        return io.NodeOutput(steered, read, ui=ui.PreviewText(_shown(model, safety_vector, found)))

    @classmethod
    def _is_sent(cls, name: str) -> bool:
        """Whether the prompt has this input; ComfyUI leaves out a dynamic combo with an unknown value."""
        prompt = cls.hidden.dynprompt
        return prompt is not None and name in prompt.get_node(cls.hidden.unique_id)["inputs"]


def _intervention(kind: str, norm: str, gate: dict[str, Any]) -> Intervention:
    """The intervention of the widgets."""
    if gate["gate"] == "prompt":
        false_alarm, token = gate.get("false_alarm", FALSE_ALARM), gate.get("token_threshold", TOKEN_THRESHOLD)
        return Intervention(kind, norm, "prompt", false_alarm=false_alarm, token_threshold=token)
    return Intervention(kind, norm, gate["gate"], gate.get("threshold", CARRIED.threshold))


def _shown(model: io.Model.Type, vector: SafetyVector, settings: SteeringSettings) -> str:
    """What the node shows: what was chosen and why, where it steers, and warnings."""
    if settings.off or not any(vector.mix.values()):
        return f"Off: the {'strength' if settings.level is None else 'level'} or every weight of the mix is 0."
    points = settings.hook_points
    where = ", ".join(points[:3]) + (f" and {len(points) - 3} more" if len(points) > 3 else "")
    choice = f"Set by hand: {settings.intervention.kind} at {where}, strength {settings.strength:g}."
    if settings.level is not None:
        choice = f"Recommended: {describe_choice(recommended(vector), settings.level)}."
    warnings = notices(vector, points, settings.strength, model)
    return "\n".join([choice, *(f"Warning: {sentence}" for sentence in warnings)])
