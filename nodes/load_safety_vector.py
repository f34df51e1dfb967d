"""Load Safety Vector."""

from __future__ import annotations

from comfy_api.latest import io

from ..bridge.folders import VECTORS, find, sha256_of, vector_labels
from ..safety_steering.vectors.card import describe
from ..safety_steering.vectors.file import load_vector
from .inputs import is_valid
from .types import CATEGORY, SEARCH_WORDS, SafetyVectorType


class LoadSafetyVector(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SafetySteering_LoadSafetyVector",
            display_name="Load Safety Vector",
            category=CATEGORY,
            description="Loads a safety vector: a small file with the directions from unsafe to safe content. Put "
            "files into models/safety_vectors.",
            search_aliases=[*SEARCH_WORDS, "safe vector", "steering vector"],
            inputs=[
                io.Combo.Input(
                    "vector",
                    options=vector_labels(),
                    tooltip="The file to load. The brackets name the model family and the hook point that it fits. "
                    "They must match the model that you steer.",
                ),
            ],
            outputs=[
                SafetyVectorType.Output("safety_vector", tooltip="Connect to Apply Safety Steering."),
                io.String.Output("card", tooltip="What the vector is, where it comes from, and what was measured."),
            ],
        )

    @classmethod
    def validate_inputs(cls, vector: str) -> bool | str:
        return is_valid(lambda: find(VECTORS, vector))

    @classmethod
    def fingerprint_inputs(cls, vector: str) -> str:
        return sha256_of(find(VECTORS, vector))

    @classmethod
    def execute(cls, vector: str) -> io.NodeOutput:
        path = find(VECTORS, vector)
        loaded = load_vector(path)
        return io.NodeOutput(loaded, f"{path.name}\n{describe(loaded)}")
