"""The interface of a language model as a source of directions: pooled states of texts, one vector a text and layer.

`source.<k>` is the hidden state after k transformer layers: 0 are the token embeddings, `layers` is the last layer's
output, before the final norm. It is the same for every backend (transformers, or a text encoder inside ComfyUI).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import torch

from ..errors import SafetySteeringError
from .words import Words

POOLINGS = ("mean", "last", "chat")
ONE_TOKEN = "token"  # one token a text, chosen by `token_fraction`: for the spread over tokens, not for directions
Progress = Callable[[int, int], None]


class SourceModel(Protocol):
    """A language model; a SAFETY_LLM link carries one.

    name: lower case, part of its spaces' ids. layers: number of transformer layers. width: D, of their states.
    """

    @property
    def name(self) -> str: ...

    @property
    def layers(self) -> int: ...

    @property
    def width(self) -> int: ...

    @property
    def poolings(self) -> tuple[str, ...]:
        """Those of `POOLINGS` that it supports; "chat" needs a chat template."""
        ...

    @property
    def fingerprint(self) -> str:
        """Differs between weights of the same name."""
        ...

    def open(self) -> AbstractContextManager[object]:
        """Keeps the model in memory during the block; blocks may be nested."""
        ...

    def space(self, layer: int) -> str:
        """The id of a layer's coordinate system, e.g. smollm2-135m/source.28."""
        ...

    def states(
        self, texts: Sequence[str], layers: Sequence[int], pooling: str = "mean", progress: Progress | None = None
    ) -> torch.Tensor:
        """States (len(texts), len(layers), D) float32 on the CPU, in the order given.

        pooling: "mean" over a text's tokens without the first; "last", its last token; "chat", the last token of the
        text as a user's message in the model's chat template; "token", one of its tokens.
        progress: called with the number of texts done and of all texts; an exception that it raises ends the run.

        Raises:
            SafetySteeringError: no such layer or pooling, or a state that is not finite.
        """
        ...

    def words(self, texts: Sequence[str], layer: int, progress: Progress | None = None) -> Words:
        """The words of texts (`find_words`) with their states at a layer, read in their texts.

        The first token of a text, an attention sink of causal models, counts for no word. Words without another token
        are left out, and so are those of texts whose tokens cannot be told apart.

        Raises:
            SafetySteeringError: no such layer, or a state that is not finite.
        """
        ...


def check_request(model: SourceModel, texts: Sequence[str], layers: Sequence[int], pooling: str) -> None:
    """Raise SafetySteeringError for a request that the model cannot answer, before anything is computed."""
    if not texts or not layers:
        raise SafetySteeringError("A source model was asked for no texts or no layers. Give at least one of each.")
    wrong = [layer for layer in layers if not 0 <= layer <= model.layers]
    if wrong:
        raise SafetySteeringError(
            f"{model.name} has the layers 0 (embeddings) to {model.layers}, and no layer {wrong[0]}. Choose another."
        )
    if pooling not in (*model.poolings, ONE_TOKEN):
        why = " It has no chat template." if pooling == "chat" else ""
        raise SafetySteeringError(
            f"{model.name} cannot pool by '{pooling}', only by {', '.join(model.poolings)}.{why} Choose one of these."
        )


def token_fraction(text: str) -> float:
    """Position, as a fraction in [0, 1), of the token that pooling "token" picks: a hash of the text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48
