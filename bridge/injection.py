"""Injection: the edits of one model call, to conditioning states and through hooks to block outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from ..safety_steering.errors import NotSteeredError
from ..safety_steering.hook_point import parse_hook_point
from ..safety_steering.interventions import Targets, stack_targets
from ..safety_steering.vector import SafetyVector
from .edit import BlockHook, Edit, EntryHook, edit_tokens
from .layout import LAYOUTS, TokenRange, editable_states, stream_tokens
from .model_map import Family, find_block, find_list, is_block
from .roles import is_targeted
from .run import CACHED, REPLACED, Call, Evidence
from .settings import SteeringSettings


@dataclass(frozen=True, eq=False)
class ModelCall:
    """One call of a diffusion model, as the APPLY_MODEL wrapper sees it. arguments: all but x, t and the options."""

    diffusion_model: torch.nn.Module
    family: Family
    x: torch.Tensor
    arguments: Mapping[str, Any]
    options: Mapping[str, Any]


class Injection:
    """Makes and applies the edits of one vector with one set of settings.

    Keeps targets and hook objects, one of each per hook point and device: hooks because torch.compile guards on their
    identity, and per device because core calls the model from one thread a device.
    """

    def __init__(self, vector: SafetyVector, settings: SteeringSettings) -> None:
        self._vector = vector
        self._settings = settings
        self._targets: dict[tuple[str, int, torch.device], Targets] = {}
        self._hooks: dict[tuple[str, torch.device], BlockHook] = {}
        self._entries: dict[torch.device, EntryHook] = {}

    def edit_states(self, model_call: ModelCall, call: Call) -> dict[str, Any]:
        """The call's arguments with the conditioning states edited; the caller's tensors stay as they are.

        Raises:
            NotSteeredError: the call does not carry the states of a hook point.
        """
        arguments, device = dict(model_call.arguments), model_call.x.device
        for name in self._settings.hook_points:
            if is_block(name):
                continue
            argument = model_call.family.states[name].argument
            if arguments.get(argument) is None:
                raise NotSteeredError(
                    f"The model was called without the states of '{name}', so nothing can be steered."
                )
            states, mask = _states(model_call, name)
            edit = self._edit(name, TokenRange(0, states.shape[1], mask), call, device)
            arguments[argument], effect = edit_tokens(states, edit)
            call.evidence.append(Evidence(name, edit.targets, effect))
        return arguments

    @contextmanager
    def hooked(self, model_call: ModelCall, call: Call) -> Iterator[None]:
        """Hooks on the target blocks for the time of one model call; afterwards what they did is collected.

        Raises:
            NotSteeredError: on leaving, if the transformer ran and a target block neither fired nor was replaced.
        """
        names = [name for name in self._settings.hook_points if is_block(name)]
        if not names:
            yield
            return
        device, family = model_call.x.device, model_call.family
        image = LAYOUTS[family.layout](model_call.diffusion_model, model_call.x, model_call.arguments)
        text, text_mask = _states(model_call, "conditioning")
        entry = self._entries.setdefault(device, EntryHook())
        entry.ran = False
        handles = [getattr(model_call.diffusion_model, family.entry).register_forward_hook(entry)]
        hooks: dict[str, BlockHook] = {}
        try:
            for name in names:
                point = parse_hook_point(name)
                _, stream = find_list(family, point)
                tokens = stream_tokens(stream, image, text, text_mask)
                hook = hooks[name] = self._hooks.setdefault((name, device), BlockHook(stream))
                hook.edit = self._edit(name, tokens, call, device)
                handles.append(find_block(model_call.diffusion_model, point).register_forward_hook(hook))
            yield
            for name, hook in hooks.items():
                if hook.effect is not None:
                    call.evidence.append(Evidence(name, self._targets_at(name, call.sigma, device), hook.effect))
                else:
                    call.note = _why_missed(name, entry.ran, model_call)
        finally:
            for handle in handles:
                handle.remove()
            for hook in hooks.values():
                hook.edit = hook.effect = None

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


def _states(model_call: ModelCall, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The conditioning states of a call and their editable rows, on the device of the call."""
    source, device = model_call.family.states[name], model_call.x.device
    states = model_call.arguments[source.argument].to(device)
    mask = model_call.arguments.get(source.mask) if source.mask else None
    return states, editable_states(states, None if mask is None else mask.to(device))


def _why_missed(name: str, ran: bool, model_call: ModelCall) -> str:
    """Why a hook did not fire, if another node answered in the block's place; NotSteeredError otherwise."""
    if not ran:
        return CACHED
    point = parse_hook_point(name)
    blocks, _ = find_list(model_call.family, point)
    replaced = model_call.options.get("patches_replace", {}).get("dit", {})
    if (blocks.replaced_as, point.index) in replaced:
        return REPLACED
    raise NotSteeredError(
        f"The model ran, but {name} was not steered in this call: the hook on that block did not fire. "
        "Another node may run the model in its own way; remove it, or steer at 'conditioning'."
    )
