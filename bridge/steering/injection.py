"""Injection: the edits of one model call, to conditioning states and through hooks to block outputs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ...safety_steering.errors import NotSteeredError
from ...safety_steering.hook_point import parse_hook_point
from ...safety_steering.steering.interventions import Targets, stack_targets
from ...safety_steering.vectors.vector import SafetyVector
from ..edit import BlockHook, Edit, EntryHook, edit_tokens
from ..models.model_map import find_list, is_block
from ..models.tokens import TokenRange
from .branches import is_targeted
from .model_call import ModelCall
from .run import CACHED, REPLACED, Call, Evidence
from .settings import SteeringSettings


class Injection:
    """Makes and applies the edits of one vector with one set of settings.

    Keeps targets and hook objects, one of each per hook point and device: hooks because torch.compile guards on their
    identity, and per device because core calls the model from one thread a device.
    """

    def __init__(self, vector: SafetyVector, settings: SteeringSettings) -> None:
        self._vector = vector
        self._settings = settings
        self._states = [name for name in settings.hook_points if not is_block(name)]
        self._blocks = [name for name in settings.hook_points if is_block(name)]
        self._targets: dict[tuple[str, int, torch.device], Targets] = {}
        self._hooks: dict[tuple[str, torch.device], BlockHook] = {}
        self._entries: dict[torch.device, EntryHook] = {}

    @contextmanager
    def steered(self, model_call: ModelCall, call: Call) -> Iterator[dict[str, Any]]:
        """Steers one model call that is made inside, with the arguments this yields; then collects what was done.

        Raises:
            NotSteeredError: the call lacks the states of a hook point; or, on leaving, the transformer ran and a
                target block neither fired nor was replaced.
        """
        device = model_call.x.device
        entry = self._entries.setdefault(device, EntryHook())
        entry.ran = False
        arguments, evidence = self._edit_states(model_call, call)
        hooks = {name: self._hook(name, model_call) for name in self._blocks}
        try:
            for name, hook in hooks.items():
                hook.edit = self._edit(name, model_call.tokens(name), call, device)
            with model_call.hooked(hooks, entry):
                yield arguments
            if not entry.ran:
                call.note = CACHED
                return
            for name, hook in hooks.items():
                if hook.edit is not None and hook.effect is not None:
                    evidence.append(Evidence(name, hook.edit.targets, hook.effect))
                else:
                    call.note = _why_missed(name, model_call)
            call.evidence += evidence
        finally:
            for hook in hooks.values():
                hook.edit = hook.effect = None

    def _edit_states(self, model_call: ModelCall, call: Call) -> tuple[dict[str, Any], list[Evidence]]:
        """The call's arguments with the conditioning states edited; the caller's tensors stay as they are."""
        arguments, evidence = dict(model_call.arguments), []
        for name in self._states:
            point = self._vector.at(name)
            states, tokens = model_call.states(name, point.space, point.width)
            edit = self._edit(name, tokens, call, model_call.x.device)
            edited, effect = edit_tokens(states, edit)
            arguments |= model_call.with_states(name, point.space, edited)
            evidence.append(Evidence(name, edit.targets, effect))
        return arguments, evidence

    def _hook(self, name: str, model_call: ModelCall) -> BlockHook:
        key = (name, model_call.x.device)
        if key not in self._hooks:
            blocks, stream = find_list(model_call.family, parse_hook_point(name))
            self._hooks[key] = BlockHook(stream, blocks.dims)
        return self._hooks[key]

    def _edit(self, name: str, tokens: TokenRange, call: Call, device: torch.device) -> Edit:
        targeted = [is_targeted(role, self._settings.branch) for role in call.roles]
        rows = None
        if not all(targeted):
            rows = torch.tensor(targeted, device=device).repeat_interleave(call.rows)[:, None, None]
        # a tensor, so that a compiled graph serves every strength
        strength = torch.full((1, 1, 1), self._settings.strength, dtype=torch.float32, device=device)
        return Edit(self._targets_at(name, call.sigma, device), self._settings.intervention, strength, rows, tokens)

    def _targets_at(self, name: str, sigma: float, device: torch.device) -> Targets:
        point = self._vector.at(name)
        sigma_bin = point.bin_of(sigma)
        key = (name, sigma_bin, device)
        if key not in self._targets:
            self._targets[key] = stack_targets(point, self._vector.mix, sigma_bin).to(device, torch.float32)
        return self._targets[key]


def _why_missed(name: str, model_call: ModelCall) -> str:
    """Why a hook did not fire though the model ran, if another node took the block's place; else NotSteeredError."""
    if model_call.is_replaced(name):
        return REPLACED
    raise NotSteeredError(
        f"The model ran, but {name} was not steered in this call: the hook on that block did not fire. "
        "Another node may run the model in its own way; remove it, or steer at 'conditioning'."
    )
