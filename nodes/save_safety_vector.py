"""Save Safety Vector."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ..bridge.folders import VECTORS, new_path
from ..safety_steering.vectors.file import save_vector
from ..safety_steering.vectors.vector import SafetyVector, describe
from .types import CATEGORY, SafetyVectorType


class SaveSafetyVector(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SafetySteering_SaveSafetyVector",
            display_name="Save Safety Vector",
            category=CATEGORY,
            description="Saves a safety vector into models/safety_vectors, whole or not at all, and shows its card.",
            search_aliases=["safety", "steering", "export vector"],
            inputs=[
                SafetyVectorType.Input("safety_vector", tooltip="The vector to save."),
                io.String.Input(
                    "filename", default="my_vector", tooltip="Name of the file, without folder; .safetensors is added."
                ),
                io.Boolean.Input(
                    "overwrite",
                    default=False,
                    tooltip="Off: an existing file of this name is kept and the node stops. On: it is replaced.",
                ),
            ],
            outputs=[io.String.Output("path", tooltip="Name of the saved file, as Load Safety Vector lists it.")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, safety_vector: SafetyVector, filename: str, overwrite: bool) -> io.NodeOutput:
        path = save_vector(safety_vector, new_path(VECTORS, filename), overwrite=overwrite)
        return io.NodeOutput(path.name, ui=ui.PreviewText(f"Saved {path.name}\n{describe(safety_vector)}"))
