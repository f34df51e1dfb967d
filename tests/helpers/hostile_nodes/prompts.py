"""What nodes of other packs do with conditioning: some of it was read by a text encoder, some was not."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io
from comfy_execution.graph_utils import GraphBuilder

SETTINGS = {"seed": 1, "steps": 2, "cfg": 2.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}


def _brought(rows: int = 8, width: int = 4096) -> list[Any]:
    """Conditioning that no text encoder has read."""
    return [[torch.randn(1, rows, width, generator=torch.Generator().manual_seed(7)), {}]]


class SampleText(io.ComfyNode):
    """Becomes an encode and a sampler. how: what it hands the sampler beside what the encode gives."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = [
            io.Model.Input("model"),
            io.Clip.Input("clip"),
            io.Latent.Input("latent"),
            io.Conditioning.Input("theirs", optional=True),
            io.String.Input("how"),
        ]
        return io.Schema(
            node_id="Hostile_SampleText",
            category="tests",
            inputs=inputs,
            outputs=[io.Latent.Output()],
            enable_expand=True,
            not_idempotent=True,
        )

    @classmethod
    def execute(cls, model: Any, clip: Any, latent: Any, how: str, theirs: Any = None) -> io.NodeOutput:
        graph = GraphBuilder()
        read = graph.node("CLIPTextEncode", clip=clip, text="men and women at sea").out(0)
        other: Any = read
        if how == "brings":
            other = _brought()
        elif how == "averages":
            other = graph.node(
                "ConditioningAverage", conditioning_to=read, conditioning_from=_brought(), conditioning_to_strength=0.1
            ).out(0)
        elif how == "reads and brings":
            clip.encode_from_tokens_scheduled(clip.tokenize("a lake"))
            other = _brought()
        elif how == "hands on":
            other = theirs
        elif how == "reads":
            other = clip.encode_from_tokens_scheduled(clip.tokenize("a lake"))
        prompts = {"positive": other, "negative": read}
        return io.NodeOutput(
            graph.node("KSampler", model=model, latent_image=latent, **prompts, **SETTINGS).out(0),
            expand=graph.finalize(),
        )


class ChangeText(io.ComfyNode):
    """Takes conditioning and gives conditioning. how: what it gives."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = [io.Conditioning.Input("theirs"), io.Clip.Input("clip"), io.String.Input("how")]
        return io.Schema(
            node_id="Hostile_ChangeText",
            category="tests",
            inputs=inputs,
            outputs=[io.Conditioning.Output()],
            not_idempotent=True,
        )

    @classmethod
    def execute(cls, theirs: Any, clip: Any, how: str) -> io.NodeOutput:
        if how == "hands on":
            return io.NodeOutput([[tensor, {**more, "strength": 0.8}] for tensor, more in theirs])
        if how == "weighs":  # as packs with a syntax of their own do
            words, empty = (clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in ("a lake", ""))
            return io.NodeOutput([[empty[0][0] + 1.2 * (words[0][0] - empty[0][0]), {}]])
        return io.NodeOutput([*theirs, *_brought()])


PROMPTS = [SampleText, ChangeText]
