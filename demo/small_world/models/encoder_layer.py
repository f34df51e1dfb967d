"""Steering inside the text encoder: MiniLM's hidden states after one of its layers.

Apply Safety Steering edits the diffusion model only. Here, to compare, the same edit is made after layer `LAYER` of
MiniLM, and the layers after it read what was edited.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .text import LENGTH, WIDTH, encode_text, minilm

LAYER = 4
INNER = f"source.{LAYER}"
Edit = Callable[[Any, Any], Any]  # states (n, N, D) and mask (n, N) -> states


def layer_states(prompts: Sequence[str]) -> tuple[Any, Any]:
    """States float32 (n, LENGTH, WIDTH) after layer `LAYER`, and the mask bool (n, LENGTH), as `encode_text` gives."""
    import torch

    seen: list[Any] = []

    def look(states: Any, mask: Any) -> Any:
        seen.append(states)
        return states

    _, mask = encode_edited(prompts, look)
    states = torch.zeros(len(prompts), LENGTH, WIDTH)
    states[[i for i, prompt in enumerate(prompts) if prompt.strip()]] = torch.cat(seen)
    return states * mask[..., None], mask


def encode_edited(prompts: Sequence[str], edit: Edit) -> tuple[Any, Any]:
    """As `encode_text`, with `edit` made to the states after layer `LAYER`."""
    _, model = minilm()
    masks: list[Any] = []

    def note(module: Any, arguments: Any, options: Any) -> None:
        masks.append(options["attention_mask"].bool())

    def after(module: Any, arguments: Any, output: Any) -> Any:
        states = output[0] if isinstance(output, tuple) else output
        edited = edit(states, masks[-1])
        return (edited, *output[1:]) if isinstance(output, tuple) else edited

    hooks = [
        model.register_forward_pre_hook(note, with_kwargs=True),
        model.encoder.layer[LAYER - 1].register_forward_hook(after),
    ]
    try:
        return encode_text(prompts)
    finally:
        for hook in hooks:
            hook.remove()
