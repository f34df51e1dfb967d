"""Transfer Direction from LLM."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ..bridge.alignment.carried import carried
from ..safety_steering.alignment.alignment import Alignment
from ..safety_steering.alignment.sharpen import SHRINKAGE
from ..safety_steering.vectors.card import describe
from ..safety_steering.vectors.vector import SafetyVector
from .types import CATEGORY, SafetyAlignmentType, SafetyVectorType


class TransferDirection(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SafetySteering_TransferDirection",
            display_name="Transfer Direction from LLM",
            category=CATEGORY,
            description="Carries a portable safety vector, fitted in a language model, into your model.",
            search_aliases=["safety", "steering", "portable", "cross-model", "carry over"],
            inputs=[
                SafetyVectorType.Input(
                    "safety_vector", tooltip="The portable vector, the same as in Fit Benign Alignment."
                ),
                SafetyAlignmentType.Input(
                    "safety_alignment", tooltip="From Fit Benign Alignment or Load Safety Alignment."
                ),
                io.Float.Input(
                    "sharpen",
                    default=SHRINKAGE,
                    min=0.0,
                    max=1000.0,
                    step=0.1,
                    optional=True,
                    tooltip="Turns the direction away from the axes along which harmless prompts vary, so that clamp "
                    "and the gates separate better. Lower is sharper, higher changes the direction less; 0 is off. 0.2 "
                    "separated best where it was measured.",
                ),
            ],
            outputs=[
                SafetyVectorType.Output("safety_vector", tooltip="Connect to Category Mixer or Apply Safety Steering."),
                io.String.Output("card", tooltip="What the vector is and where it comes from."),
            ],
            has_intermediate_output=True,  # a cached result's words are told again
        )

    @classmethod  # a graph of before there was a measured default may leave out sharpen: then it is 1, as it was
    def execute(cls, safety_vector: SafetyVector, safety_alignment: Alignment, sharpen: float = 1.0) -> io.NodeOutput:
        vector = carried(safety_vector, safety_alignment, sharpen)
        card = describe(vector)
        return io.NodeOutput(vector, card, ui=ui.PreviewText(card))
