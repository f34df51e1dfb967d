"""One call of a diffusion model: its arguments, its token layout, and hooks for the length of the call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from ...safety_steering.errors import NotSteeredError
from ...safety_steering.hook_point import HookPoint
from ..models.families import LAYOUTS, PARTS
from ..models.families.schema import Family
from ..models.model_map import find_block, find_list, find_output, find_state
from ..models.tokens import Layout, TokenRange, editable_states, from_sequence, to_sequence

ForwardHook = Callable[[torch.nn.Module, Any, Any], Any]
# the order of apply_model, which wrappers of other packs rely on
POSITIONAL = ("x", "t", "c_concat", "c_crossattn", "control", "transformer_options")
CHECKPOINTED = "org_forward"  # an attribute of modules that core's TrainLoraNode checkpoints


def named(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """apply_model's arguments by name, however they were passed."""
    return {**dict.fromkeys(POSITIONAL), **dict(zip(POSITIONAL, args, strict=False)), **kwargs}


def proceed(executor: Any, arguments: Mapping[str, Any]) -> torch.Tensor:
    """Call the next wrapper with arguments from `named`, as core would."""
    rest = dict(arguments)
    result: torch.Tensor = executor(*[rest.pop(name) for name in POSITIONAL], **rest)
    return result


def sigma_of(arguments: Mapping[str, Any]) -> float:
    """The noise level of a call. The only value that is read on the host, before the model runs."""
    sigmas = (arguments["transformer_options"] or {}).get("sigmas")
    return float((arguments["t"] if sigmas is None else sigmas).max())


@dataclass(frozen=True, eq=False)
class ModelCall:
    """One call as an APPLY_MODEL wrapper sees it, with apply_model's arguments by name."""

    diffusion_model: torch.nn.Module
    family: Family
    arguments: Mapping[str, Any]

    @property
    def x(self) -> torch.Tensor:
        """The noisy latents; their device is the call's."""
        x = self.arguments["x"]
        assert isinstance(x, torch.Tensor)
        return x

    @property
    def options(self) -> Mapping[str, Any]:
        """The call's transformer_options."""
        return self.arguments["transformer_options"] or {}

    def states(self, name: str, space: str = "", width: int = 0) -> tuple[torch.Tensor, TokenRange]:
        """The conditioning states (B, N, D) at a hook point, on the call's device, and which rows may be edited.

        space, width: one of the spaces at this hook point; without them the first.

        Raises:
            NotSteeredError: the call does not carry them, or the model does not read them.
        """
        source = find_state(self.family, name, space, width)
        states, mask = self.arguments.get(source.argument), None
        if source.read_by and getattr(self.diffusion_model, source.read_by, None) is None:
            raise NotSteeredError(
                f"This model does not read the states of '{name}', so nothing can be steered there. "
                "Choose another hook point, or a model that starts from an image."
            )
        if states is None:
            raise NotSteeredError(
                f"The model was called without the states of '{name}', so nothing can be steered. "
                "If only its negative calls carry none, choose branch 'positive'."
            )
        states = to_sequence(states.to(self.x.device), source.dims)
        if source.mask and self.arguments.get(source.mask) is not None:
            mask = self.arguments[source.mask].to(self.x.device)
        rows = editable_states(states, mask)
        if source.part:
            part, channels = PARTS[source.part](self.diffusion_model, states)
            rows = rows if part is None else rows & part
            states = states[..., channels]
        return states, TokenRange(0, states.shape[1], rows)

    def with_states(self, name: str, space: str, edited: torch.Tensor) -> dict[str, Any]:
        """The call's arguments with the states at a hook point replaced; the caller's tensors are unchanged."""
        source = find_state(self.family, name, space, edited.shape[-1])
        former = self.arguments[source.argument].to(edited.device)
        whole = edited
        if source.part:
            whole = to_sequence(former, source.dims).clone()
            whole[..., PARTS[source.part](self.diffusion_model, whole)[1]] = edited
        return {**self.arguments, source.argument: from_sequence(whole, former, source.dims)}

    @cached_property
    def _layout(self) -> Layout:
        return LAYOUTS[self.family.layout](self.diffusion_model, self.x, self.arguments)

    def _stream(self, name: str) -> TokenRange:
        if name not in self._layout and name == "text":
            return self.states("conditioning")[1]
        return self._layout[name]

    def tokens(self, name: HookPoint) -> TokenRange:
        """The editable tokens in a stream of the output of a block, or of the module in it that reads the text."""
        stream = find_output(self.family, name).stream
        own = self._stream(stream.name)
        if own.start < 0:
            return own
        before = sum(self._stream(other).span for other in stream.after)
        return TokenRange(before + own.start, own.count, own.mask, frame=own.frame)

    @contextmanager
    def hooked(
        self, hooks: Iterable[tuple[HookPoint, ForwardHook]], entry: ForwardHook | None = None
    ) -> Iterator[None]:
        """Register forward hooks on blocks, on modules in them, and on the family's entry module for one call."""
        handles = []
        try:
            if entry is not None:
                module = self.diffusion_model.get_submodule(self.family.entry)
                handles.append(module.register_forward_hook(entry))
            for name, hook in hooks:
                handles.append(find_block(self.diffusion_model, name).register_forward_hook(hook))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def check_runs_once(self, name: HookPoint) -> None:
        """Check that training will not run a block again after this call, when it is not steered any more.

        Raises:
            NotSteeredError: core's gradient checkpointing covers more than the block.
        """
        if not torch.is_grad_enabled():
            return
        block = find_block(self.diffusion_model, name)
        for outer in self.diffusion_model.modules():
            if hasattr(outer, CHECKPOINTED) and outer is not block and any(inner is block for inner in outer.modules()):
                raise NotSteeredError(
                    f"This trains with gradient checkpointing, which runs {name} a second time when its steering has "
                    "ended. Turn gradient_checkpointing off, or raise checkpoint_depth so that it covers single blocks."
                )

    def is_replaced(self, name: HookPoint) -> bool:
        """Whether another node has replaced a block through core's `patches_replace`."""
        blocks = find_list(self.family, name)
        return (blocks.replaced_as, name.number) in self.options.get("patches_replace", {}).get("dit", {})
