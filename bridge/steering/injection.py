"""Injection: the edits of one model call, to conditioning states and through hooks to what blocks write and read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch

from ...safety_steering.errors import NotSteeredError
from ...safety_steering.hook_point import HookPoint
from ...safety_steering.steering.interventions import (
    Effect,
    Intervention,
    Targets,
    active_categories,
    intervene,
    stack_targets,
)
from ...safety_steering.steering.prompt_gate import Decision, PromptGate, decide, detectors_for, make_gate
from ...safety_steering.steering.trace import CACHED, NOTHING_TO_EDIT
from ...safety_steering.vectors.vector import SafetyVector
from ..models.families.schema import Stream
from ..models.model_map import WITNESSES, find_output
from ..models.tokens import TokenRange, from_sequence, to_sequence
from .branches import is_targeted
from .model_call import ModelCall
from .run import REPLACED, Call, Measured
from .settings import SteeringSettings

Hooks = Mapping[HookPoint, "BlockHook"]


class Injection:
    """Makes and applies the edits of one vector with one set of settings.

    Keeps targets and hook objects, one of each per hook point and device: hooks because torch.compile guards on their
    identity, and per device because core calls the model from one thread a device.
    """

    def __init__(self, vector: SafetyVector, settings: SteeringSettings) -> None:
        """Raises MismatchError if the gate is `prompt` and the vector has no detectors."""
        self._vector = vector
        self._detectors = detectors_for(vector, settings.intervention)
        self._active = active_categories(vector.categories, vector.mix)
        self._settings = settings
        steered = [point for point in settings.hook_points if settings.strength_at(point)]
        self._states = [point for point in steered if not point.in_blocks]
        self._blocks = [point for point in steered if point.in_blocks]
        self._targets: dict[tuple[HookPoint, int, torch.device], Targets] = {}
        self._gates: dict[torch.device, PromptGate] = {}
        self._hooks: dict[tuple[HookPoint, torch.device], BlockHook] = {}
        self._watches: dict[torch.device, Watch] = {}

    @contextmanager
    def watched(
        self,
        model_call: ModelCall,
        call: Call,
        witnesses: Sequence[HookPoint],
        hooks: Hooks = MappingProxyType({}),
    ) -> Iterator[None]:
        """Hooks one model call that is made inside, and notes how much of the transformer ran in it."""
        watch = self._watches.setdefault(model_call.x.device, Watch())
        watch.reset()
        with model_call.hooked((*hooks.items(), *zip(witnesses, watch.blocks, strict=False)), watch.entry):
            yield
        call.entered = watch.entry.ran
        ran = [hook.ran or model_call.is_replaced(name) for name, hook in zip(witnesses, watch.blocks, strict=False)]
        call.blocks_ran = sum(ran) / len(ran)

    @contextmanager
    def steered(self, model_call: ModelCall, call: Call, witnesses: Sequence[HookPoint]) -> Iterator[dict[str, Any]]:
        """Steers one model call that is made inside, with the arguments this yields; then collects what was done.

        Raises:
            NotSteeredError: the call lacks the states of a hook point.
        """
        device = model_call.x.device
        decision = self._decide(model_call)
        arguments, measured = self._edit_states(model_call, call, decision)
        hooks = {name: self._hook(name, model_call) for name in self._blocks}
        try:
            for name, hook in hooks.items():
                model_call.check_runs_once(name)
                hook.edit = self._edit(name, model_call.tokens(name), call, device, decision)
            with self.watched(model_call, call, witnesses, hooks):
                yield arguments
            if not call.entered:
                call.note = CACHED
                return
            for name, hook in hooks.items():
                if hook.edit is not None and hook.effect is not None:
                    measured.append(Measured(name, hook.edit.targets, hook.effect, hook.edit.decision))
                elif model_call.is_replaced(name):
                    call.note = REPLACED
                elif model_call.tokens(name).count == 0:  # without sound, what would read for it is not called
                    call.note = call.note or NOTHING_TO_EDIT
                else:
                    call.missed.append(name)
            call.measured += measured
            if call.measured and call.note == NOTHING_TO_EDIT:
                call.note = ""
        finally:
            for hook in hooks.values():
                hook.edit = hook.effect = None

    def _decide(self, model_call: ModelCall) -> Decision | None:
        """What the gate `prompt` decides for the call's own text states; None under another gate."""
        detectors = self._detectors
        if detectors is None:
            return None
        device = model_call.x.device
        if device not in self._gates:
            self._gates[device] = make_gate(detectors, self._settings.intervention, device)
        states, tokens = model_call.states(detectors.hook_point, detectors.space, detectors.width)
        return decide(states, tokens.mask, self._gates[device]).of(self._active)

    def _edit_states(
        self, model_call: ModelCall, call: Call, decision: Decision | None
    ) -> tuple[dict[str, Any], list[Measured]]:
        """The call's arguments with the conditioning states edited; the caller's tensors stay as they are."""
        arguments, measured = dict(model_call.arguments), []
        for name in self._states:
            point = self._vector.at(name)
            states, tokens = model_call.states(name, point.space, point.width)
            edit = self._edit(name, tokens, call, model_call.x.device, decision)
            edited, effect = edit_tokens(states, edit)
            arguments |= model_call.with_states(name, point.space, edited)
            measured.append(Measured(name, edit.targets, effect, edit.decision))
        return arguments, measured

    def _hook(self, name: HookPoint, model_call: ModelCall) -> BlockHook:
        key = (name, model_call.x.device)
        if key not in self._hooks:
            output = find_output(model_call.family, name)
            self._hooks[key] = BlockHook(output.stream, output.dims)
        return self._hooks[key]

    def _edit(
        self, name: HookPoint, tokens: TokenRange, call: Call, device: torch.device, decision: Decision | None
    ) -> Edit:
        targeted = [is_targeted(role, self._settings.branch) for role in call.roles]
        rows = None
        if not all(targeted):
            rows = torch.tensor(targeted, device=device).repeat_interleave(call.rows)[:, None, None]
        # as a tensor: a compiled graph then serves every strength
        strength = torch.full((1, 1, 1), self._settings.strength_at(name), dtype=torch.float32, device=device)
        targets = self._targets_at(name, call.sigma, device)
        return Edit(targets, self._settings.intervention, strength, rows, tokens, decision)

    def _targets_at(self, name: HookPoint, sigma: float, device: torch.device) -> Targets:
        point = self._vector.at(name)
        sigma_bin = point.bin_of(sigma)
        key = (name, sigma_bin, device)
        if key not in self._targets:
            self._targets[key] = stack_targets(point, self._vector.mix, sigma_bin).to(device, torch.float32)
        return self._targets[key]


@dataclass(frozen=True, eq=False)
class Edit:
    """The edit of one stream in one model call. strength: (1, 1, 1) float32. rows: (B, 1, 1) boolean, None: all.

    decision: of the gate `prompt`, on the categories of `targets`; None under another gate.
    """

    targets: Targets
    how: Intervention
    strength: torch.Tensor
    rows: torch.Tensor | None
    tokens: TokenRange
    decision: Decision | None = None


def edit_tokens(h: torch.Tensor, edit: Edit) -> tuple[torch.Tensor, Effect]:
    """Edit the tokens of `h` (B, N, D) in `edit.tokens`. Every other token of the result is bit-equal.

    Raises:
        NotSteeredError: `h` is not the sequence that the model map expects.
    """
    width = edit.targets.directions.shape[1]
    start, end = edit.tokens.within(h.shape[1] if h.ndim == 3 else 0)
    if h.ndim != 3 or start < 0 or h.shape[1] < end or h.shape[2] != width:
        raise NotSteeredError(
            f"A hidden state of shape {tuple(h.shape)} came where {end} tokens of width {width} or more were expected. "
            "The token layout of this model is not the one in the model map. Please report the model."
        )
    mask = edit.tokens.mask
    if edit.rows is not None:
        mask = edit.rows if mask is None else mask & edit.rows
    part = h if (start, end) == (0, h.shape[1]) else h[:, start:end]
    if mask is not None:
        mask = mask.expand(part.shape[0], part.shape[1], 1)
    opened = None if edit.decision is None else edit.decision.opened
    steered, effect = intervene(part, edit.targets, edit.how, edit.strength, mask, opened)
    return (steered if part is h else torch.cat([h[:, :start], steered, h[:, end:]], dim=1)), effect


class BlockHook:
    """A forward hook for one block or one module in it, one object for all calls.

    torch.compile guards on the identity of hooks, so a call puts its edit in `edit` and reads `effect`; both are None
    outside of a steered call. One hook serves one device.
    """

    def __init__(self, stream: Stream, dims: str = "BND") -> None:
        self.item = stream.item
        self.dims = dims
        self.edit: Edit | None = None
        self.effect: Effect | None = None

    def __call__(self, module: torch.nn.Module, inputs: Any, output: Any) -> Any:
        edit = self.edit
        if edit is None:
            return None
        h = output if self.item is None else output[self.item]
        sequence, self.effect = edit_tokens(to_sequence(h, self.dims), edit)
        steered = from_sequence(sequence, h, self.dims)
        return steered if self.item is None else (*output[: self.item], steered, *output[self.item + 1 :])


class RanHook:
    """A forward hook that notes that its module ran. `ran` is reset before each call."""

    def __init__(self) -> None:
        self.ran = False

    def __call__(self, module: torch.nn.Module, inputs: Any, output: Any) -> None:
        self.ran = True


class Watch:
    """Hooks on a family's entry module, which runs whenever the transformer does, and on a few of its blocks.

    A cache of blocks lets the entry run and skips the blocks. One object per device for all calls, as of BlockHook.
    """

    def __init__(self) -> None:
        self.entry = RanHook()
        self.blocks = tuple(RanHook() for _ in range(WITNESSES))

    def reset(self) -> None:
        """Forget the last call."""
        for hook in (self.entry, *self.blocks):
            hook.ran = False
