"""A CLIP for nodes that encode texts themselves: the stand-in text encoders behind ComfyUI's two CLIP methods."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

from comfy_api.latest import io

from .minilm_text_encode import MiniLMTextEncode, small_world_tokens
from .text_encode import PADDED_LENGTH, conditioning

SMALL_WORLD = "small world"
ENCODER = "minilm"


class Tokens(dict):
    """The tokens of a text by encoder, as ComfyUI's tokenizers give them, with the text beside them."""

    def __init__(self, text: str, tokens: list[int] | None) -> None:
        super().__init__({} if tokens is None else {ENCODER: [[(token, 1.0) for token in tokens]]})
        self.text = text


class Clip:
    """`encode`: text -> CONDITIONING. tokens: text -> its token numbers, with the `vocabulary` that they are of."""

    def __init__(
        self,
        encode: Callable[[str], list],
        tokens: Callable[[str], list[int]] | None = None,
        vocabulary: dict[int, str] | None = None,
    ) -> None:
        self._encode, self._tokens = encode, tokens
        self.tokenizer = SimpleNamespace(**{ENCODER: SimpleNamespace(inv_vocab=vocabulary)} if tokens else {})

    def tokenize(self, text: str) -> Tokens:
        return Tokens(text, self._tokens(text) if self._tokens else None)

    def encode_from_tokens_scheduled(self, tokens: Tokens) -> list:
        return self._encode(tokens.text)


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
            return io.NodeOutput(Clip(lambda text: MiniLMTextEncode.execute(text)[0], *small_world_tokens()))
        return io.NodeOutput(Clip(lambda text: conditioning(text, width, 0, kind)))
