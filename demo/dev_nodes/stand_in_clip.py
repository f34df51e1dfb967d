"""A CLIP for nodes that encode texts themselves: the stand-in text encoders behind ComfyUI's two CLIP methods."""

from __future__ import annotations

from collections.abc import Callable

from comfy_api.latest import io

from .minilm_text_encode import MiniLMTextEncode
from .text_encode import PADDED_LENGTH, conditioning

SMALL_WORLD = "small world"


class Clip:
    """`encode`: text -> CONDITIONING. Texts are their own tokens."""

    def __init__(self, encode: Callable[[str], list]) -> None:
        self._encode = encode

    def tokenize(self, text: str) -> str:
        return text

    def encode_from_tokens_scheduled(self, tokens: str) -> list:
        return self._encode(tokens)


class StandInClip(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SafetySteeringDev_StandInClip",
            display_name="Stand-in CLIP (development)",
            category="Safety Steering/development",
            description="For tests and the small world only. What the development text encoders give, as a CLIP.",
            inputs=[
                io.Combo.Input("kind", options=[*PADDED_LENGTH, SMALL_WORLD]),
                io.Int.Input("width", default=4096, min=1, max=16384, tooltip="Not for the small world."),
            ],
            outputs=[io.Clip.Output()],
        )

    @classmethod
    def execute(cls, kind: str, width: int) -> io.NodeOutput:
        if kind == SMALL_WORLD:
            return io.NodeOutput(Clip(lambda text: MiniLMTextEncode.execute(text)[0]))
        return io.NodeOutput(Clip(lambda text: conditioning(text, width, 0, kind)))
