"""Load Safety Alignment."""

from __future__ import annotations

from comfy_api.latest import io

from ..bridge.folders import ALIGNMENTS, find, names, sha256_of
from ..safety_steering.alignment.file import load_alignment
from ..safety_steering.alignment.report import describe_alignment
from .inputs import is_valid
from .types import CATEGORY, SafetyAlignmentType


class LoadSafetyAlignment(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SafetySteering_LoadSafetyAlignment",
            display_name="Load Safety Alignment",
            category=CATEGORY,
            description="Loads an alignment that Save Safety Alignment wrote. Put files into models/safety_alignments.",
            search_aliases=["safety", "steering", "import alignment"],
            inputs=[
                io.Combo.Input("alignment", options=names(ALIGNMENTS), tooltip="The file to load."),
            ],
            outputs=[
                SafetyAlignmentType.Output("safety_alignment", tooltip="Connect to Transfer Direction from LLM."),
                io.String.Output("card", tooltip="From which space to which it maps, and how good it is."),
            ],
        )

    @classmethod
    def validate_inputs(cls, alignment: str) -> bool | str:
        return is_valid(lambda: find(ALIGNMENTS, alignment))

    @classmethod
    def fingerprint_inputs(cls, alignment: str) -> str:
        return sha256_of(find(ALIGNMENTS, alignment))

    @classmethod
    def execute(cls, alignment: str) -> io.NodeOutput:
        loaded = load_alignment(find(ALIGNMENTS, alignment))
        return io.NodeOutput(loaded, describe_alignment(loaded))
