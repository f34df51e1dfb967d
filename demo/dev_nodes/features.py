"""Random but repeatable feature vectors of words: the stand-in for a text encoder's states."""

from __future__ import annotations

import hashlib

import torch


def word_state(word: str, width: int) -> torch.Tensor:
    """The state of one word: (width,) float32 standard normals seeded by the word itself."""
    seed = int.from_bytes(hashlib.sha256(word.lower().encode()).digest()[:7], "big")
    return torch.randn(width, generator=torch.Generator().manual_seed(seed))


def text_states(text: str, width: int) -> torch.Tensor:
    """One row per word and one for the end of the text: (words + 1, width) float32."""
    return torch.stack([word_state(word, width) for word in [*text.split(), "</s>"]])
