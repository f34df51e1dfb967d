"""The text encoder inside a CLIP as a place to steer: its space, and whether a vector was made for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...safety_steering.errors import MismatchError, SafetySteeringError
from ...safety_steering.hook_point import HookPoint
from ...safety_steering.language_models.layer_states import find_layers
from ...safety_steering.language_models.transformers_model import slug
from ...safety_steering.vectors.vector import SafetyVector
from ..models.fingerprints import weights_fingerprint
from ..models.text_encoders import class_name
from .clip_source import encoder_width, largest_encoder

SHARED_NAMES = ("llama",)  # core's name for several models of one size: the class of the CLIP tells which
METHODS = ("clone", "tokenize", "encode_from_tokens", "encode_from_tokens_scheduled")


@dataclass(frozen=True, eq=False)
class Encoder:
    """The largest text encoder of a CLIP. part: what tokens are given to. transformer: what holds the layers."""

    name: str
    part: torch.nn.Module
    transformer: torch.nn.Module
    layers: torch.nn.ModuleList
    width: int

    def space(self, layer: int) -> str:
        """The id of the space after a layer, counted from 1."""
        return f"{self.name}/encoder.{layer}"


def encoder_of(clip: Any) -> Encoder:
    """The encoder that is steered in a CLIP.

    Raises:
        MismatchError: the CLIP has none whose layers are known, or is not built as ComfyUI's own.
    """
    missing = [name for name in METHODS if not hasattr(clip, name)]
    if missing or not isinstance(getattr(clip, "cond_stage_model", None), torch.nn.Module):
        raise MismatchError(
            f"This text encoder ({type(clip).__name__}) is not built as ComfyUI's own CLIP, so nothing can be steered "
            "inside it. Steer at 'conditioning', or load the encoder with one of ComfyUI's loaders."
        )
    try:
        name, transformer = largest_encoder(clip)
        layers = find_layers(transformer)
    except SafetySteeringError as error:
        raise MismatchError(f"{error} Or steer at 'conditioning'.") from error
    own = slug(name)
    if own in SHARED_NAMES:
        own = f"{slug(class_name(clip.cond_stage_model))}-{own}"
    return Encoder(own, getattr(clip.cond_stage_model, name), transformer, layers, encoder_width(transformer))


def check_fits_encoder(vector: SafetyVector, hook_points: Sequence[HookPoint], clip: Any) -> Encoder:
    """The encoder of a CLIP, if `vector` was made for its spaces at these hook points.

    Raises:
        MismatchError: it was not, or as of `encoder_of`.
    """
    encoder = encoder_of(clip)
    for point in hook_points:
        directions = vector.at(point)
        fits = point.number <= len(encoder.layers) and directions.width == encoder.width
        if not fits or directions.space != encoder.space(point.number):
            raise MismatchError(
                f"This vector is for the text encoder in whose space {directions.space} ({directions.width} wide) it "
                f"lives at {point}. This CLIP's is {encoder.name}, with {len(encoder.layers)} layers "
                f"({encoder.width} wide). Connect the text encoder that the vector was made for, or carry it over to "
                "this one with Fit Benign Alignment."
            )
    return encoder


def encoder_warning(vector: SafetyVector, encoder: Encoder, clip: Any) -> str:
    """A sentence if the vector was fitted on other weights of this encoder, else an empty string."""
    fitted = vector.info.weight_fingerprint
    if not fitted or fitted == weights_fingerprint(clip.patcher, encoder.transformer):
        return ""
    return (
        f"The vector was fitted on other weights of {encoder.name} than those loaded (another precision, quantisation, "
        "merge or fine-tune). It still applies; judge its effect before you rely on it."
    )
