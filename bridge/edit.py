"""The forward hook that edits a block's output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ..safety_steering.errors import NotSteeredError
from ..safety_steering.steering.interventions import Effect, Intervention, Targets, intervene
from .models.families.schema import Stream
from .models.tokens import TokenRange, from_sequence, to_sequence


@dataclass(frozen=True, eq=False)
class Edit:
    """What to do to a stream in one model call. strength: (B, 1, 1) float32; rows: (B, 1, 1) boolean, None if all."""

    targets: Targets
    how: Intervention
    strength: torch.Tensor
    rows: torch.Tensor | None
    tokens: TokenRange


def edit_tokens(h: torch.Tensor, edit: Edit) -> tuple[torch.Tensor, Effect]:
    """Edit the tokens of `h` (B, N, D) that `edit` names. Every other token of the result is bit-equal.

    Raises:
        NotSteeredError: `h` is not the sequence that the model map expects.
    """
    width = edit.targets.directions.shape[1]
    start, end = edit.tokens.within(h.shape[1] if h.ndim == 3 else 0)
    if h.ndim != 3 or start < 0 or h.shape[1] < end or h.shape[2] != width:
        raise NotSteeredError(
            f"A hidden state of shape {tuple(h.shape)} came where {end} tokens of width {width} or more were expected. "
            "This model's tokens are laid out differently from what Safety Steering knows; please report the model."
        )
    mask = edit.tokens.mask
    if edit.rows is not None:
        mask = edit.rows if mask is None else mask & edit.rows
    part = h if (start, end) == (0, h.shape[1]) else h[:, start:end]
    if mask is not None:
        mask = mask.expand(part.shape[0], part.shape[1], 1)
    steered, effect = intervene(part, edit.targets, edit.how, edit.strength, mask)
    return (steered if part is h else torch.cat([h[:, :start], steered, h[:, end:]], dim=1)), effect


class BlockHook:
    """A forward hook for one block: the one object that stays the same over all calls.

    torch.compile guards on the identity of hooks, so what changes from call to call is put in `edit` and read from
    `effect`, both None outside a steered call. One hook serves one device at a time.
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


class EntryHook:
    """A forward hook on the module that runs once whenever the transformer really runs."""

    def __init__(self) -> None:
        self.ran = False

    def __call__(self, module: torch.nn.Module, inputs: Any, output: Any) -> None:
        self.ran = True
