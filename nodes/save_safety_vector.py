"""Save Safety Vector."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ..bridge.folders import VECTORS, new_path
from ..safety_steering.vectors.card import describe
from ..safety_steering.vectors.file import save_vector
from ..safety_steering.vectors.vector import SafetyVector
from .inputs import new_file_inputs
from .types import CATEGORY, SafetyVectorType


class SaveSafetyVector(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SafetySteering_SaveSafetyVector",
            display_name="Save Safety Vector",
            category=CATEGORY,
            description="Saves a safety vector into models/safety_vectors and shows its card. A failed save leaves no "
            "partial file.",
            search_aliases=["safety", "steering", "export vector"],
            inputs=[
                SafetyVectorType.Input("safety_vector", tooltip="The vector to save."),
                *new_file_inputs("my_vector"),
            ],
            outputs=[io.String.Output("path", tooltip="Name of the saved file, as Load Safety Vector lists it.")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, safety_vector: SafetyVector, filename: str, overwrite: bool) -> io.NodeOutput:
        path = save_vector(safety_vector, new_path(VECTORS, filename), overwrite=overwrite)
        return io.NodeOutput(path.name, ui=ui.PreviewText(f"Saved {path.name}\n{describe(safety_vector)}"))
