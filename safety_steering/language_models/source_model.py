"""What a language model has to offer to be a source of directions: its states for texts, pooled to one vector a text.

`source.<k>` is the state after k transformer layers: 0 are the token embeddings, `layers` is what the last layer gives,
before the final norm. Whatever runs the model (transformers, or a text encoder inside ComfyUI), it is read in the same
place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import torch

from ..errors import SafetySteeringError

POOLINGS = ("mean", "last", "chat")
ONE_TOKEN = "token"  # not for directions: one token a text, drawn by the text itself, for the spread over tokens
Progress = Callable[[int, int], None]


class SourceModel(Protocol):
    """A language model; a SAFETY_LLM link carries one.

    name: in lower case, part of its spaces' ids. layers: how many transformer layers. width: D, of their states.
    """

    @property
    def name(self) -> str: ...

    @property
    def layers(self) -> int: ...

    @property
    def width(self) -> int: ...

    @property
    def poolings(self) -> tuple[str, ...]:
        """Which of `POOLINGS` it can do; "chat" needs a chat template."""
        ...

    @property
    def fingerprint(self) -> str:
        """Tells weights apart that bear the same name."""
        ...

    def open(self) -> AbstractContextManager[object]:
        """Keeps the model in memory between the calls inside the block; blocks may be nested."""
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
        progress: called with how many texts are done, of how many; what it raises ends the run.

        Raises:
            SafetySteeringError: no such layer or pooling, or a state that is not finite.
        """
        ...


def check_request(model: SourceModel, texts: Sequence[str], layers: Sequence[int], pooling: str) -> None:
    """Raise SafetySteeringError for what no model could answer, before anything is computed."""
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


def place_of(text: str) -> float:
    """Where in a text the token lies that pooling "token" takes: in [0, 1), drawn from the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48
