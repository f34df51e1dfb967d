"""Save Safety Alignment."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ..bridge.folders import ALIGNMENTS, new_path
from ..safety_steering.alignment.alignment import Alignment
from ..safety_steering.alignment.file import save_alignment
from ..safety_steering.alignment.report import describe_alignment
from .inputs import new_file_inputs
from .types import CATEGORY, SafetyAlignmentType


class SaveSafetyAlignment(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SafetySteering_SaveSafetyAlignment",
            display_name="Save Safety Alignment",
            category=CATEGORY,
            description="Saves an alignment into models/safety_alignments, for example to share it. Fit Benign "
            "Alignment keeps a copy of its own. A failed save leaves no partial file.",
            search_aliases=["safety", "steering", "export alignment"],
            inputs=[
                SafetyAlignmentType.Input("safety_alignment", tooltip="The alignment to save."),
                *new_file_inputs("my_alignment"),
            ],
            outputs=[io.String.Output("path", tooltip="Name of the saved file, as Load Safety Alignment lists it.")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, safety_alignment: Alignment, filename: str, overwrite: bool) -> io.NodeOutput:
        path = save_alignment(safety_alignment, new_path(ALIGNMENTS, filename), overwrite=overwrite)
        text = f"Saved {path.name}\n{describe_alignment(safety_alignment)}"
        return io.NodeOutput(path.name, ui=ui.PreviewText(text))
