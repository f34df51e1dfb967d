"""One prompt that a text encoder reads: the hooks on its layers while it does, and what they did."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from ...safety_steering.errors import NotSteeredError
from ...safety_steering.hook_point import HookPoint
from ...safety_steering.steering.interventions import Targets, intervene
from ...safety_steering.steering.trace import NOTHING_TO_EDIT, OFF, RunTrace
from ..language_models.encoder_fit import Encoder
from .own_tokens import Frame, Pieces, own_tokens
from .run import Call, Measured, Run, finish
from .settings import SteeringSettings

EMPTY = "there was no text."


class Reading:
    """One prompt that an encoder reads, in one pass or several.

    aside: a host's policy steers it instead. targets: gives the active categories at a hook point, on a device. frames:
    what may stand around the text.
    """

    def __init__(
        self,
        encoder: Encoder,
        settings: SteeringSettings,
        targets: Callable[[HookPoint, torch.device], Targets],
        frames: Sequence[Frame],
    ) -> None:
        self.aside = False
        self._encoder, self._settings, self._targets, self._frames = encoder, settings, targets, frames
        self._pieces: Pieces = ()
        self._mask = torch.zeros(0, 0, 1, dtype=torch.bool)
        self._passes = 0
        self._edited = dict.fromkeys(settings.hook_points, 0)
        self._call = Call(0.0, ("unknown",), 1)

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Hooks on the encoder while a prompt is read inside."""
        encoder, points = self._encoder, self._edited
        handles = [
            encoder.part.register_forward_pre_hook(self._take_pieces),
            encoder.transformer.register_forward_pre_hook(self._take_pass, with_kwargs=True),
            *(encoder.layers[point.number - 1].register_forward_hook(self._edit(point)) for point in points),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def trace(self, about: Mapping[str, Any], warnings: list[str]) -> RunTrace:
        """What was done, read off the device once. about: the facts of the trace that are not measured here.

        Raises:
            NotSteeredError: a pass of the encoder did not run a steered layer, or what came is not finite.
        """
        if self.aside:
            return RunTrace(OFF, reason="the host's safety policy steers this prompt instead.", texts=True, **about)
        for point, count in self._edited.items():
            if count != self._passes or not count:
                raise NotSteeredError(
                    f"The text encoder {self._encoder.name} read a prompt and {point} was not steered: the hook on "
                    "that layer did not fire. Another node may replace the layer; connect the CLIP directly from its "
                    "loader."
                )
        trace = finish(Run(calls=[self._call], warnings=warnings), "both", **about)
        reason = EMPTY if trace.status == NOTHING_TO_EDIT else trace.reason
        return replace(trace, texts=True, reason=reason)

    def _take_pieces(self, module: torch.nn.Module, args: Any) -> None:
        self._pieces = args[0]

    def _take_pass(self, module: torch.nn.Module, args: Any, kwargs: Any) -> None:
        embeds = kwargs.get("embeds")
        if embeds is None or len(self._pieces) != embeds.shape[0]:
            raise NotSteeredError(
                f"The text encoder {self._encoder.name} is called in a way that hides which tokens are the prompt's. "
                "Steer at 'conditioning', and please report this text encoder."
            )
        pad, width = pad_of(self._encoder), self._encoder.width
        masks = [own_tokens(piece, embeds.shape[1], width, pad, self._frames) for piece in self._pieces]
        self._mask = torch.stack(masks)[..., None]
        self._passes += 1

    def _edit(self, point: HookPoint) -> Callable[[torch.nn.Module, Any, Any], Any]:
        def edit(module: torch.nn.Module, args: Any, output: Any) -> Any:
            if self.aside:
                return None
            states = output[0] if isinstance(output, tuple) else output
            if states.shape[:2] != self._mask.shape[:2]:
                raise NotSteeredError(
                    f"After {point} of {self._encoder.name} came states of shape {tuple(states.shape)}, expected "
                    f"{tuple(self._mask.shape[:2])} tokens. Please report this text encoder."
                )
            settings, targets = self._settings, self._targets(point, states.device)
            # a long prompt is read in pieces: one sample, so that a pooled gate decides for all of it
            whole = states.reshape(1, -1, states.shape[-1])
            mask = self._mask.to(states.device).reshape(1, -1, 1)
            edited, effect = intervene(whole, targets, settings.intervention, settings.strength_at(point), mask)
            self._call.measured.append(Measured(point, targets, effect))
            self._edited[point] += 1
            edited = edited.reshape(states.shape)
            return (edited, *output[1:]) if isinstance(output, tuple) else edited

        return edit


def pad_of(encoder: Encoder) -> Any:
    """The token that an encoder's texts are padded with."""
    return getattr(encoder.part, "special_tokens", {}).get("pad")
