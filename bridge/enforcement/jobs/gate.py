"""The output gate: the host's judge sees finished frames before a node writes them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch

from ....guardrail.output_gate import DELIVER, decide, notice_image
from ....guardrail.policy import Policy
from ....safety_steering.errors import SafetySteeringError

Judge = Callable[[torch.Tensor], Sequence[Mapping[str, float]]]
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
        decision = decide(list(_judge(str(gate.judge))(frames[..., :3])), gate)
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
    """Frames (N, H, W, C) of an IMAGE or a VIDEO."""
    if isinstance(value, torch.Tensor) and value.ndim == 4 and value.shape[-1] in (3, 4):
        return value
    return value.get_components().images if hasattr(value, "get_components") else None


def _replaced(value: Any, frames: torch.Tensor) -> Any:
    """The same kind of input with a neutral notice in each frame, and silent."""
    picture = np.asarray(notice_image(frames.shape[2], frames.shape[1]).convert("RGB"), dtype=np.float32) / 255
    notices = torch.from_numpy(picture).expand(frames.shape[0], -1, -1, -1).contiguous()
    if isinstance(value, torch.Tensor):
        return notices
    from comfy_api.latest import InputImpl, Types

    rate = value.get_components().frame_rate
    return InputImpl.VideoFromComponents(Types.VideoComponents(images=notices, audio=None, frame_rate=rate))
