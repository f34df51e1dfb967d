"""Target `encoder_layer`: the hidden states inside a text encoder, a hook point `source.<layer>` of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from comfy.model_management import throw_exception_if_processing_interrupted

from ...safety_steering.alignment.fit import AnchorStates, Side
from ...safety_steering.errors import SafetySteeringError
from ...safety_steering.language_models.source_model import ONE_TOKEN
from ..alignment.target import Progress, TargetStates
from ..language_models.clip_source import ClipSource
from ..models.fingerprints import clip_key

NOTE = (
    "An inner layer of the text encoder: a vector carried there can be measured; Apply steers the diffusion model only."
)


class EncoderLayer:
    """The states after one layer of a CLIP's largest encoder. depth: 0 is the first layer, 1 the last."""

    def __init__(self, clip: Any, depth: float) -> None:
        self._clip, self._source = clip, ClipSource(clip)
        self._layer = 1 + round(depth * (self._source.layers - 1))

    def key(self) -> Any:
        """As of Target."""
        return ["encoder_layer", self._source.space(self._layer), clip_key(self._clip)]

    def states(self, texts: Sequence[str], progress: Progress) -> TargetStates:
        """As of Target: the mean over a text's own tokens, and one of them."""

        def step(done: int, total: int) -> None:
            throw_exception_if_processing_interrupted()
            progress(done // 2, total)

        pooled = self._source.states(texts, [self._layer], "mean", step)[:, 0]
        token = self._source.states(texts, [self._layer], ONE_TOKEN, step)[:, 0]
        side = Side(f"source.{self._layer}", self._source.space(self._layer), name=self._source.name)
        return TargetStates(AnchorStates(pooled, token), side, (NOTE,))


def encoder_layer(clip: Any, depth: float) -> EncoderLayer:
    """The target, from what is connected; SafetySteeringError if the text encoder is not."""
    if clip is None:
        raise SafetySteeringError("The target encoder_layer needs your model's text encoder. Connect it to clip.")
    return EncoderLayer(clip, depth)
