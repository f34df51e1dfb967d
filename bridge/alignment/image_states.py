"""Target `clip_vision`: the states of a start image that an image-to-video model receives.

Its anchors are pairs of a harmless image and its caption, both the user's own (none are bundled): the source reads the
caption, the image encoder the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from comfy.model_management import throw_exception_if_processing_interrupted

from ...safety_steering.alignment.alignment import Side
from ...safety_steering.alignment.fit import TargetStates
from ...safety_steering.errors import MismatchError, SafetySteeringError
from ...safety_steering.language_models.source_model import Progress
from ..models.families import FAMILIES
from ..models.families.schema import Family
from ..models.fingerprints import digest, patcher_key
from ..models.model_map import patcher_shape, state_space
from ..models.tokens import editable_states
from .target import Pooled

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

HOOK_POINT = "clip_vision"
WITHOUT_MODEL = "wan"  # the family if no model is connected
# families whose model reads another output of the encoder than the penultimate layer
READ_BY = {"hunyuan-video": "last_hidden_state"}
NOTE = "The anchors are image and caption pairs of your own: the map is as good as the captions describe the images."


class ImageStates:
    """The states of a CLIP_VISION for images (n, H, W, 3), one a caption.

    Raises:
        SafetySteeringError: on construction, if one of the two is missing or the model's family reads no images.
    """

    def __init__(self, clip_vision: Any, images: torch.Tensor | None, model: ModelPatcher | None = None) -> None:
        if clip_vision is None or images is None:
            raise SafetySteeringError(
                "The target clip_vision needs harmless images of your own with a caption each: connect clip_vision, "
                "images, anchors (the captions, in the images' order) and the language model to safety_llm."
            )
        self._clip_vision, self._images, self._model = clip_vision, images, model
        self._family: Family = (
            next(family for family in FAMILIES if family.name == WITHOUT_MODEL)
            if model is None
            else patcher_shape(model).family
        )
        if HOOK_POINT not in self._family.states:
            raise MismatchError(f"Models of the family {self._family.name} take no states at '{HOOK_POINT}'.")

    def key(self) -> Any:
        """As of `Target`."""
        encoder = patcher_key(self._clip_vision.patcher) if hasattr(self._clip_vision, "patcher") else self._probe()
        return [HOOK_POINT, self._family.name, encoder, digest(self._images)]

    def states(self, texts: Sequence[str], progress: Progress, words: int = 0) -> TargetStates:
        """As of `Target`, without words. Text i is the caption of image i."""
        if len(texts) != len(self._images):
            raise SafetySteeringError(
                f"There are {len(self._images)} images and {len(texts)} captions. Connect one image for each caption, "
                "in the same order."
            )
        pooled = Pooled()
        for number, (text, image) in enumerate(zip(texts, self._images, strict=True)):
            throw_exception_if_processing_interrupted()
            progress(number, len(texts))
            states = self._encode(image[None])
            pooled.add(states, editable_states(states, None), text)
        name = "" if self._model is None else patcher_shape(self._model).name
        side = Side(HOOK_POINT, state_space(self._family, HOOK_POINT, pooled.width), name=name)
        return TargetStates(pooled.result(), side, (NOTE,))

    def _encode(self, image: torch.Tensor) -> torch.Tensor:
        output = self._clip_vision.encode_image(image)
        states: torch.Tensor = output[READ_BY.get(self._family.name, "penultimate_hidden_states")]
        return states

    def _probe(self) -> str:
        return digest(self._encode(self._images[:1]))
