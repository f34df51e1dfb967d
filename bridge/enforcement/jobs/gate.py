"""The output gate: the host's judge sees finished frames before a node writes them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, cast

import numpy as np
import torch

from ....guardrail.output_gate import DELIVER, decide, notice_image
from ....guardrail.policy import Policy
from ....safety_steering.errors import SafetySteeringError

Judge = Callable[[torch.Tensor], Sequence[Mapping[str, float]]]
MASK_DIMENSIONS, COLOURS, MOST_CHANNELS = 3, 3, 8
WITHOUT_FRAMES = {"SafetySteering_SteeringReport", "PreviewAny", "SaveText"}  # they show charts and words


def gate_inputs(values: Mapping[str, list[Any]], policy: Policy) -> tuple[dict[str, list[Any]], str, bool]:
    """Judge every frame among a node's inputs.

    Returns:
        the inputs, held-back frames replaced by a notice; why any was held back, or ""; whether there were frames.

    Raises:
        SafetySteeringError: a frame is held back and the policy fails the job, or the judge itself failed.
    """
    gated, reason, seen = dict(values), "", False
    for name, given in values.items():
        for place, value in enumerate(given):
            frames = _frames(value)
            if frames is None:
                continue
            seen = True
            if found := _held_back(frames, policy):
                reason = found
                gated[name] = [*gated[name][:place], _replaced(value, frames), *gated[name][place + 1 :]]
    return gated, reason, seen


def _held_back(frames: torch.Tensor, policy: Policy) -> str:
    """Why the policy holds these frames (N, H, W, C) back, or an empty string."""
    gate = policy.settings.output_gate
    try:
        decisions = [decide(list(_judge(str(gate.judge))(view)), gate) for view in _views(frames)]
        decision = next((found for found in decisions if found.action != DELIVER), decisions[0])
    except SafetySteeringError:
        raise
    except Exception as error:
        raise SafetySteeringError(f"The host's judge could not judge these pictures: {error}.") from error
    if decision.action == DELIVER:
        return ""
    if decision.action == "fail":
        raise SafetySteeringError(f"The output gate held this back. {decision.reason} Change the prompt.")
    return decision.reason


@cache
def _judge(name: str) -> Judge:
    module, _, function = name.partition(":")
    judge: Judge = getattr(importlib.import_module(module), function)
    return judge


def _frames(value: Any) -> torch.Tensor | None:
    """Frames (N, H, W, C) of an IMAGE, a MASK (as one channel) or a VIDEO; None for what carries none.

    Raises:
        SafetySteeringError: a tensor that is none of these, so that it cannot be judged.
    """
    if hasattr(value, "get_components"):
        return cast("torch.Tensor", value.get_components().images)
    if not isinstance(value, torch.Tensor) or value.ndim < MASK_DIMENSIONS:
        return None
    frames = value[..., None] if value.ndim == MASK_DIMENSIONS else value
    if frames.ndim != MASK_DIMENSIONS + 1 or frames.shape[-1] > MOST_CHANNELS:
        raise SafetySteeringError(f"The output gate cannot judge a tensor of shape {tuple(value.shape)}.")
    return frames


def _views(frames: torch.Tensor) -> list[torch.Tensor]:
    """Every channel as frames (N, H, W, 3): the first three in colour, each further one in grey."""
    colour = [frames[..., :3]] if frames.shape[-1] >= COLOURS else []
    grey = [frames[..., channel, None] for channel in range(COLOURS if colour else 0, frames.shape[-1])]
    return [*colour, *(view.expand(-1, -1, -1, COLOURS) for view in grey)]


def _replaced(value: Any, frames: torch.Tensor) -> Any:
    """The same kind of input with a neutral notice in each frame, and silent."""
    picture = np.asarray(notice_image(frames.shape[2], frames.shape[1]).convert("RGB"), dtype=np.float32) / 255
    notices = torch.from_numpy(picture).expand(frames.shape[0], -1, -1, -1).contiguous()
    if isinstance(value, torch.Tensor):
        return notices[..., 0] if value.ndim == MASK_DIMENSIONS else notices[..., : max(1, min(3, value.shape[-1]))]
    from comfy_api.latest import InputImpl, Types

    rate = value.get_components().frame_rate
    return InputImpl.VideoFromComponents(Types.VideoComponents(images=notices, audio=None, frame_rate=rate))
