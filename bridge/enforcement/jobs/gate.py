"""The output gate: the host's judge sees finished frames before a node writes them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, cast

import numpy as np
import torch

from ....guardrail.output_gate import DELIVER, decide, notice_image
from ....guardrail.policy import Policy
from ....safety_steering.errors import SafetySteeringError
from .values import OTHER_TYPES, bundle_of, carries_pictures, is_file_like

Judge = Callable[[torch.Tensor], Sequence[Mapping[str, float]]]
SOUND, LATENTS, SHAPES, HIDDEN = "sound", "latents", "3D shapes", "pictures within other values"
SHAPE_TYPES = {"MESH", "VOXEL", "SPLAT"}
MASK_DIMENSIONS, COLOURS, MOST_CHANNELS = 3, 3, 8
WITHOUT_FRAMES = {"SafetySteering_SteeringReport", "PreviewAny", "SaveText"}  # they show charts and words


@dataclass(frozen=True)
class Seen:
    """judged: whether there were frames. unjudged: what there was that the judge cannot see."""

    judged: bool = False
    unjudged: tuple[str, ...] = ()

    def __or__(self, other: Seen) -> Seen:
        return Seen(self.judged or other.judged, tuple(dict.fromkeys([*self.unjudged, *other.unjudged])))


@dataclass(frozen=True)
class Gated:
    """A node's inputs after the gate. values: with notices in the place of frames that are held back. reason: why any
    are, or "". seen: by input, what the judge has seen of it."""

    values: Mapping[str, list[Any]]
    reason: str = ""
    seen: Mapping[str, Seen] = field(default_factory=dict)


def gate_inputs(values: Mapping[str, list[Any]], policy: Policy, kinds: Mapping[str, str] = {}) -> Gated:
    """Judge every frame among a node's inputs. kinds: input name -> type of its socket.

    Raises:
        SafetySteeringError: a frame is held back and the policy fails the job, or the judge itself failed.
    """
    gated, reason, seen = dict(values), "", dict[str, Seen]()
    for name, given in values.items():
        for place, value in enumerate(given if kinds.get(name) not in OTHER_TYPES else ()):
            frames = _frames(value)
            unjudged = [SHAPES] if frames is None and kinds.get(name) in SHAPE_TYPES else _unjudged(value)
            seen[name] = seen.get(name, Seen()) | Seen(frames is not None, tuple(unjudged))
            if frames is None:
                continue
            found = _held_back(frames, policy)
            reason = found or reason
            # a video is made anew of what was judged: the file that it may come from can have more in it
            if found or hasattr(value, "get_components"):
                new = _replaced(value, frames) if found else _rebuilt(value)
                gated[name] = [*gated[name][:place], new, *gated[name][place + 1 :]]
    return Gated(gated, reason, seen)


def _unjudged(value: Any, top: bool = True) -> Iterator[str]:
    """What a value carries that a judge of frames cannot see."""
    if held := bundle_of(value):
        yield {"waveform": SOUND, "samples": LATENTS}[held]
    elif hasattr(value, "get_components"):
        yield from [SOUND] if value.get_components().audio else []
    elif is_file_like(value):
        yield SHAPES
    elif isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _unjudged(inner, top=False)
    elif carries_pictures(value) and not (top and isinstance(value, torch.Tensor) and value.ndim >= MASK_DIMENSIONS):
        yield HIDDEN


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
    return _video(notices, None, value.get_components().frame_rate)


def _rebuilt(video: Any) -> Any:
    """A video of the frames that were judged, and of its first sound."""
    parts = video.get_components()
    return _video(parts.images, parts.audio, parts.frame_rate)


def _video(images: torch.Tensor, audio: Any, frame_rate: Any) -> Any:
    from comfy_api.latest import InputImpl, Types

    return InputImpl.VideoFromComponents(Types.VideoComponents(images=images, audio=audio, frame_rate=frame_rate))
