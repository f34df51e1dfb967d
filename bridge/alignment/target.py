"""What a direction can be carried to: a place in a model, and the states that benign anchors have there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from ...safety_steering.alignment.fit import AnchorStates, Side
from ...safety_steering.errors import SafetySteeringError
from ..sampling.sampling import number_of

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class TargetStates:
    """The anchors' states, the space they are in, and sentences that people should know."""

    states: AnchorStates
    side: Side
    notes: tuple[str, ...] = ()


class Target(Protocol):
    """A place in a model."""

    def key(self) -> Any:
        """Plain data that decides what `states` gives, for the cache."""
        ...

    def states(self, texts: Sequence[str], progress: Progress) -> TargetStates:
        """The states of texts. progress: called with how many are done, of how many; what it raises ends the run."""
        ...


class Pooled:
    """Pools states text by text, so that memory does not grow with their length."""

    def __init__(self) -> None:
        self._pooled: list[torch.Tensor] = []
        self._token: list[torch.Tensor] = []

    @property
    def width(self) -> int:
        """D, of what was added."""
        return len(self._pooled[0])

    def add(self, states: torch.Tensor, rows: torch.Tensor, text: str) -> None:
        """One text's states (1, N, D) and which rows may be edited, (1, N, 1) boolean.

        Kept are the mean over these rows and one of them, drawn by the text: the same rows that steering will edit.
        """
        kept = states[0][rows[0, :, 0]].to("cpu", torch.float64)
        if not len(kept):
            raise SafetySteeringError(f"The encoder gives no states for '{text[:80]}'. Leave this anchor out.")
        self._pooled.append(kept.mean(dim=0).float())
        self._token.append(kept[number_of(text) % len(kept)].float())

    def result(self) -> AnchorStates:
        """Everything added so far, in its order."""
        return AnchorStates(torch.stack(self._pooled), torch.stack(self._token))
