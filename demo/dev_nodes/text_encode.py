"""Ordinary CONDITIONING without a text encoder, laid out as the real encoder of each model family lays it out."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from .features import text_states, word_state

POOLED_WIDTH = 768  # CLIP-L's pooled output, which Flux takes
PADDED_LENGTH = {"wan": 512, "ltxv": 128, "flux": 256, "ltx2": 0}


def conditioning(text: str, width: int, length: int, kind: str) -> list:
    """CONDITIONING of ``text``: (1, length, width) states and the extras that ``kind`` carries.

    wan: padding rows are exactly zero, no mask (umT5). ltxv: nonzero padding under an integer mask (T5). flux:
    nonzero padding that is attended to, no mask, and a pooled vector. ltx2: the words alone, marked as still to pass
    the model's connectors. ``length`` 0 takes the family's own padded length; longer texts grow it.
    """
    states = text_states(text, width)
    words = len(states)
    padding = max(0, (length or PADDED_LENGTH[kind]) - words)
    pad = torch.zeros(width) if kind == "wan" else 0.1 * word_state("<pad>", width)
    padded = torch.cat([states, pad.expand(padding, width)]).unsqueeze(0)
    extras: dict[str, torch.Tensor | bool | None] = {"pooled_output": None}
    if kind == "ltxv":
        extras["attention_mask"] = torch.tensor([[1] * words + [0] * padding])
    if kind == "flux":
        extras["pooled_output"] = word_state(text, POOLED_WIDTH).unsqueeze(0)
    if kind == "ltx2":
        extras["unprocessed_ltxav_embeds"] = True
    return [[padded, extras]]


class TextEncode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SafetySteeringDev_TextEncode",
            display_name="Text Encode (development)",
            category="Safety Steering/development",
            description="For tests only. Random features of the words, laid out as the family's real encoder does.",
            inputs=[
                io.String.Input("text", multiline=True, default=""),
                io.Combo.Input("kind", options=list(PADDED_LENGTH)),
                io.Int.Input("width", default=4096, min=1, max=16384),
                io.Int.Input("length", default=0, min=0, max=4096, tooltip="0: as the real encoder pads."),
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, text: str, kind: str, width: int, length: int) -> io.NodeOutput:
        return io.NodeOutput(conditioning(text, width, length, kind))
