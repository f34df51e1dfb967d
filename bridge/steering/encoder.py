"""Steering inside a text encoder: a CLIP that edits the states after a layer of its encoder while it reads a prompt.

The edit is made by hooks that exist while a prompt is read. The layers after it, and the diffusion model, get what was
edited. Only the prompt's own tokens are edited (`own_tokens`), so prompt weights, which core takes against an empty
prompt, keep their meaning. Nothing stays on the shared encoder.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache
from typing import Any
from weakref import WeakValueDictionary

import torch
from comfy.model_patcher import ModelPatcher
from comfy_execution.utils import get_executing_context

from ...safety_steering.errors import MismatchError
from ...safety_steering.hook_point import HookPoint
from ...safety_steering.steering.interventions import Targets, stack_targets
from ...safety_steering.steering.trace import (
    ACTED,
    NOTHING_FOUND,
    NOTHING_TO_EDIT,
    CallTrace,
    RunTrace,
)
from ...safety_steering.vectors.vector import SafetyVector
from ..language_models.encoder_fit import check_fits_encoder, encoder_of, encoder_warning
from .apply import apply_steering
from .encoder_reading import EMPTY, Reading, pad_of
from .own_tokens import Frame, find_frames
from .run_log import RunLog, about, described
from .settings import SteeringSettings

GATES = ("off", "pooled", "token")
MOST_FRAMES = 64
KEPT_TEXTS = 64  # of one prompt, that the node is told of
# node id -> the steering that the node put on a CLIP last
ENCODER_STEERINGS: WeakValueDictionary[str, EncoderSteering] = WeakValueDictionary()


def split_settings(settings: SteeringSettings) -> tuple[SteeringSettings | None, SteeringSettings | None]:
    """The settings for the model, and for its text encoder; None where no hook point is left."""
    inside = tuple(point for point in settings.hook_points if point.in_encoder)
    rest = tuple(point for point in settings.hook_points if not point.in_encoder)
    model, encoder = (replace(settings, hook_points=points) if points else None for points in (rest, inside))
    return model, encoder


def steer(
    model: ModelPatcher,
    clip: Any,
    vector: SafetyVector,
    settings: SteeringSettings,
    on_trace: Callable[[RunTrace], None] | None = None,
) -> tuple[ModelPatcher, Any]:
    """A model and its text encoder, each steered at those of the hook points that lie in it, else as it came in.

    Raises:
        MismatchError: as of `apply_steering` and `steer_encoder`.
    """
    in_model, in_encoder = split_settings(settings)
    if in_encoder is not None:
        clip = steer_encoder(clip, vector, in_encoder, on_trace)
    return model if in_model is None else apply_steering(model, vector, in_model, on_trace), clip


def steer_encoder(
    clip: Any,
    vector: SafetyVector,
    settings: SteeringSettings,
    on_trace: Callable[[RunTrace], None] | None = None,
) -> Any:
    """A clone of a CLIP that steers every prompt it reads; the original is unchanged, and returned if nothing is asked.

    settings: with hook points inside the encoder alone. on_trace: hears of each prompt that was read.

    Raises:
        MismatchError: no CLIP, or one that the vector was not made for.
    """
    if settings.off or not any(vector.mix.values()):
        return clip
    if clip is None:
        raise MismatchError(
            f"This vector steers inside the text encoder ({', '.join(settings.hook_points)}). Connect the text encoder "
            "to clip, and the output clip to the nodes that read the prompts."
        )
    encoder = check_fits_encoder(vector, settings.hook_points, clip)
    steering = EncoderSteering(vector, settings, encoder_warning(vector, encoder, clip), on_trace)
    return _steered(clip.clone(), (*encoder_steerings_of(clip), steering))


def encoder_steerings_of(clip: Any) -> tuple[EncoderSteering, ...]:
    """The steerings inside the encoder of a CLIP, in the order in which they were applied."""
    return clip.encoder_steerings if isinstance(clip, SteeredClip) else ()


class SteeredClip:
    """What a steered CLIP does before its own class. Clones of it, as LoRA and CLIP Set Last Layer make, do it too."""

    encoder_steerings: tuple[EncoderSteering, ...]

    def clone(self, *args: Any, **kwargs: Any) -> Any:
        """A clone that is steered as well."""
        return _steered(super().clone(*args, **kwargs), self.encoder_steerings)  # type: ignore[misc]  # of the CLIP's own class, which is behind this one

    def tokenize(self, text: str, return_word_ids: bool = False, **kwargs: Any) -> Any:
        """The tokens of a text; notes the template that these arguments put around any text."""
        tokenize = super().tokenize  # type: ignore[misc]  # of the CLIP's own class, which is behind this one
        if kwargs:
            for steering in self.encoder_steerings:
                steering.note_frames(self, lambda probe: tokenize(probe, **kwargs))
        return tokenize(text, return_word_ids, **kwargs)

    def encode_from_tokens(self, *args: Any, **kwargs: Any) -> Any:
        """As of a CLIP, steered."""
        with self._reading():
            return super().encode_from_tokens(*args, **kwargs)  # type: ignore[misc]  # of the CLIP's own class, which is behind this one

    def encode_from_tokens_scheduled(self, *args: Any, **kwargs: Any) -> Any:
        """As of a CLIP, steered, also where hooks on the CLIP make several passes."""
        with self._reading():
            return super().encode_from_tokens_scheduled(*args, **kwargs)  # type: ignore[misc]  # of the CLIP's own class, which is behind this one

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with ExitStack() as stack:
            for steering in self.encoder_steerings:
                stack.enter_context(steering.reading(self))
            yield


def _steered(clip: Any, steerings: tuple[EncoderSteering, ...]) -> Any:
    """`clip` itself, of a class that steers before it does what its own class does."""
    if not isinstance(clip, SteeredClip):
        clip.__class__ = _steered_class(type(clip))
    clip.encoder_steerings = steerings
    return clip


@cache
def _steered_class(kind: type) -> type:
    return type(f"Steered{kind.__name__}", (SteeredClip, kind), {})


class EncoderSteering:
    """One vector applied with one set of settings to one CLIP and its clones.

    log: the prompts that were read, by the node that read them. last: what was done to the last one. node_id: of the
    node that made it. vector, settings, warning, on_trace: as of `Steering`; settings.hook_points lie inside the
    encoder, window and branch mean nothing here, because a text encoder does not know what a prompt will be used for.

    Raises:
        MismatchError: on construction, if the gate cannot be decided inside an encoder.
    """

    off = False

    def __init__(
        self,
        vector: SafetyVector,
        settings: SteeringSettings,
        warning: str = "",
        on_trace: Callable[[RunTrace], None] | None = None,
    ) -> None:
        if settings.intervention.gate not in GATES:
            raise MismatchError(
                f"The gate '{settings.intervention.gate}' is decided at the prompt's finished states, which do not "
                f"exist yet inside the text encoder. Choose one of {', '.join(GATES)}."
            )
        self.vector = vector
        self.settings = settings
        self.log = RunLog()
        self.last: RunTrace | None = None
        context = get_executing_context()
        self.node_id = context.node_id if context else ""
        if self.node_id:
            ENCODER_STEERINGS[self.node_id] = self
        self._warnings = (warning,) if warning else ()
        self._on_trace = on_trace
        self._frames: dict[Frame, None] = {}
        self._targets: dict[tuple[HookPoint, torch.device], Targets] = {}
        self._reading: Reading | None = None
        self._told: tuple[str, tuple[CallTrace, ...]] = ("", ())

    @property
    def described(self) -> dict[str, Any]:
        """The settings as plain data."""
        return described(self.vector, self.settings)

    def tell(self, trace: RunTrace) -> None:
        """Call `on_trace`, if there is one."""
        if self._on_trace is not None:
            self._on_trace(trace)

    def note_frames(self, clip: Any, tokenize: Callable[[str], Any]) -> None:
        """Remember what this way of tokenizing puts around every text."""
        pad = pad_of(encoder_of(clip))
        for frame in find_frames(tokenize, pad):
            self._frames.pop(frame, None)
            self._frames[frame] = None
        while len(self._frames) > MOST_FRAMES:
            del self._frames[next(iter(self._frames))]

    def stand_aside(self) -> None:
        """Leave the prompt that is being read alone, because a host's policy steers it instead."""
        if self._reading is not None:
            self._reading.aside = True

    @contextmanager
    def reading(self, clip: Any) -> Iterator[None]:
        """Steers what a CLIP reads inside. A reading inside of another one, as core makes, is the same one.

        Raises:
            NotSteeredError: the encoder read a prompt without running a steered layer, or the result is not finite.
        """
        if self._reading is not None:
            yield
            return
        encoder = check_fits_encoder(self.vector, self.settings.hook_points, clip)
        self.note_frames(clip, _plain_tokenizer(clip))
        reading = self._reading = Reading(encoder, self.settings, self._targets_at, tuple(self._frames))
        try:
            with reading.hooked():
                yield
        finally:
            self._reading = None
        self._record(reading.trace(about(self.vector, self.settings), list(self._warnings)))

    def _targets_at(self, point: HookPoint, device: torch.device) -> Targets:
        """The active categories at a hook point, float32. A text encoder knows no noise: the first sigma bin holds."""
        if (point, device) not in self._targets:
            stacked = stack_targets(self.vector.at(point), self.vector.mix, 0)
            self._targets[point, device] = stacked.to(device, torch.float32)
        return self._targets[point, device]

    def _record(self, trace: RunTrace) -> None:
        self.last = trace
        self.log.add(trace)
        logging.info("Safety Steering: %s", trace.summary())
        for warning in trace.warnings:
            logging.warning("Safety Steering: %s", warning)
        self.tell(self._of_prompt(trace))

    def _of_prompt(self, trace: RunTrace) -> RunTrace:
        """One trace of all texts that were read so far in the running prompt: a node shows one."""
        prompt_id, calls = self._told
        calls = (*(calls if prompt_id == trace.prompt_id else ()), *trace.calls)[-KEPT_TEXTS:]
        calls = tuple(replace(call, sigma=float(number)) for number, call in enumerate(calls, start=1))
        self._told = (trace.prompt_id, calls)
        if not calls:
            return trace
        hooks = [hook for call in calls for hook in call.hooks]
        status = ACTED if any(hook.moved for hook in hooks) else NOTHING_FOUND if hooks else NOTHING_TO_EDIT
        return replace(trace, status=status, calls=calls, reason=EMPTY if status == NOTHING_TO_EDIT else "")


def _plain_tokenizer(clip: Any) -> Callable[[str], Any]:
    """The CLIP's own tokenize, which notes nothing."""
    return super(SteeredClip, clip).tokenize if isinstance(clip, SteeredClip) else clip.tokenize
