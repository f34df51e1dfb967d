"""Prompts as the second generator reads them: Gemma 3 270M's hidden states after layer 12, through its last norm.

The later layers of a language model are about the next word; the middle ones are about the words that were read. The
first token is left out: it starts every text and its state, hundreds of times longer than the others, says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

WIDTH = 640
LENGTH = 20
LAYER = 12
BATCH = 64


@lru_cache(maxsize=1)
def gemma() -> tuple[Any, Any]:
    """Gemma 3: its tokenizer, and its model cut after layer `LAYER`; loaded once."""
    import torch
    from gemma3 import gemma3_folder
    from transformers import AutoTokenizer, Gemma3ForCausalLM

    folder = gemma3_folder()
    model = Gemma3ForCausalLM.from_pretrained(folder, dtype=torch.float32).model.eval()
    model.layers = model.layers[:LAYER]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.padding_side = "right"
    return tokenizer, model


def encode_text(prompts: Sequence[str], length: int = LENGTH) -> tuple[Any, Any]:
    """Text states float32 (n, length, WIDTH), exactly zero where the mask bool (n, length) is False.

    Longer prompts are cut at `length` tokens. The empty prompt gives all-zero states and an all-False mask: that is
    what the generator was trained to take as "no prompt".
    """
    import torch

    tokenizer, model = gemma()
    states = torch.zeros(len(prompts), length, WIDTH)
    mask = torch.zeros(len(prompts), length, dtype=torch.bool)
    spoken = [i for i, prompt in enumerate(prompts) if prompt.strip()]
    for start in range(0, len(spoken), BATCH):
        rows = spoken[start : start + BATCH]
        tokens = tokenizer(
            [prompts[i] for i in rows],
            padding=True,
            truncation=True,
            max_length=length + 1,
            return_tensors="pt",
        )
        with torch.inference_mode():
            hidden = model(**tokens).last_hidden_state
        keep = tokens["attention_mask"].bool()[:, 1:]
        states[rows, : keep.shape[1]] = hidden[:, 1:] * keep[..., None]
        mask[rows, : keep.shape[1]] = keep
    return states, mask


def token_ids(prompts: Sequence[str], length: int = LENGTH) -> list[list[int]]:
    """The token ids of each prompt, at the positions of their states in `encode_text`."""
    tokenizer, _ = gemma()
    ids: list[list[int]] = tokenizer(list(prompts), truncation=True, max_length=length + 1)["input_ids"]
    return [row[1:] for row in ids]
