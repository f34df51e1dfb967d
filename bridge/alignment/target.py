"""The target of an alignment: a hook point in a model, and the states that it has for benign texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from ...safety_steering.alignment.alignment import AnchorStates
from ...safety_steering.alignment.fit import TargetStates
from ...safety_steering.errors import SafetySteeringError
from ...safety_steering.language_models.source_model import Progress
from ..sampling.sampling import number_of


class Target(Protocol):
    """A hook point in a connected model."""

    def key(self) -> Any:
        """Plain data that decides what `states` returns, for the cache."""
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
        """D of the states added so far."""
        return len(self._pooled[0])

    def add(self, states: torch.Tensor, rows: torch.Tensor, text: str) -> None:
        """Add one text's states (1, N, D); rows: (1, N, 1) bool, which of them steering may edit.

        Kept are the mean over these rows and one of them, drawn by the text.
        """
        kept = states[0][rows[0, :, 0]].to("cpu", torch.float64)
        if not len(kept):
            raise SafetySteeringError(f"The encoder gives no states for '{text[:80]}'. Leave this anchor out.")
        self._pooled.append(kept.mean(dim=0).float())
        self._token.append(kept[number_of(text) % len(kept)].float())

    def result(self) -> AnchorStates:
        """Everything added so far, in order."""
        return AnchorStates(torch.stack(self._pooled), torch.stack(self._token))
