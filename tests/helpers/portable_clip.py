"""A CLIP for tests: it gives a family case's own CONDITIONING and keeps every text it was given."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from family_cases.case import FamilyCase


class TracedClip:
    """Behaves like a CLIP as far as CLIP Text Encode uses one. texts: all that it was ever asked to read."""

    def __init__(self, case: FamilyCase) -> None:
        self._case = case
        self.texts: list[str] = []

    def tokenize(self, text: str) -> str:
        self.texts.append(text)
        return text

    def encode_from_tokens_scheduled(self, tokens: str) -> list[Any]:
        return self._case.entry(_seed(tokens))


class TracedClipVision:
    """Behaves like a CLIP_VISION: states of 257 patches, 1280 wide, from an image's grey values."""

    def __init__(self) -> None:
        self.images = 0

    def encode_image(self, image: torch.Tensor) -> Any:
        from comfy.clip_vision import Output

        self.images += 1
        output = Output()
        generator = torch.Generator().manual_seed(int(image.sum() * 1000) % 2**31)
        output.penultimate_hidden_states = torch.randn(1, 257, 1280, generator=generator)
        output.last_hidden_state = torch.randn(1, 5, 1152, generator=generator)
        return output


def _seed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
