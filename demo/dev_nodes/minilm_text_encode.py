"""The small world's text encoder: MiniLM tokens as ordinary CONDITIONING."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from comfy_api.latest import io

TEXT = Path(__file__).resolve().parents[1] / "small_world" / "models" / "text.py"


@lru_cache(maxsize=1)
def _text() -> ModuleType:
    spec = importlib.util.spec_from_file_location("safety_steering_small_world_text", TEXT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def small_world_tokens() -> tuple[Callable[[str], list[int]], dict[int, str]]:
    """MiniLM's tokens of a text, as many as `encode_text` gives states, and what each reads as."""
    text = _text()
    vocabulary = {number: piece for piece, number in text.minilm()[0].get_vocab().items()}

    def tokens(prompt: str) -> list[int]:
        found = text.token_ids([prompt])[0]
        return found + [0] * (text.LENGTH - len(found))  # 0: MiniLM's padding

    return tokens, vocabulary


class MiniLMTextEncode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SafetySteeringDev_MiniLMTextEncode",
            display_name="Small World Prompt (development)",
            category="Safety Steering/development",
            description="For the small world only. Reads a prompt with MiniLM, which its generator was trained with.",
            inputs=[
                io.String.Input(
                    "text",
                    multiline=True,
                    tooltip="One prompt a line; several lines make a batch. Empty: no prompt at all.",
                )
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, text: str) -> io.NodeOutput:
        states, _ = _text().encode_text(text.splitlines() or [""])
        return io.NodeOutput([[states, {}]])
