"""From a node's choice and links to a target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...safety_steering.errors import SafetySteeringError
from ..alignment.block_states import BlockChoice, block_states
from ..alignment.image_states import image_states
from ..alignment.target import Target
from ..alignment.text_states import text_states
from .encoder_layer import encoder_layer

TARGETS = ("conditioning", "encoder_layer", "clip_vision", "blocks")


@dataclass(frozen=True, eq=False)
class Connected:
    """What is connected of the target: CLIP, MODEL, CLIP_VISION, IMAGE, LATENT and CONDITIONING, or None."""

    clip: Any = None
    model: Any = None
    clip_vision: Any = None
    images: Any = None
    latent: Any = None
    template: Any = None


def choose_target(choice: Mapping[str, Any], connected: Connected, seed: int = 0) -> Target:
    """The target of a choice, "target" and its settings by name.

    Raises:
        SafetySteeringError: something that it needs is not connected, or as the targets' own.
    """
    name, settings = choice["target"], {key: value for key, value in choice.items() if key != "target"}
    if name == "conditioning":
        space = settings.get("space", "auto").strip() or "auto"
        return text_states(connected.clip, connected.model, space, connected.latent, connected.template)
    if name == "encoder_layer":
        return encoder_layer(connected.clip, settings.get("layer", 0.5))
    if name == "clip_vision":
        return image_states(connected.clip_vision, connected.images, connected.model)
    if name == "blocks":
        choice = BlockChoice(**settings)
        return block_states(connected.clip, connected.model, choice, connected.latent, connected.template, seed)
    raise SafetySteeringError(f"'{name}' is no target; choose one of {', '.join(TARGETS)}.")
