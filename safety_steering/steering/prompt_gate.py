"""The gate `prompt`: whether a category may act, decided once for each prompt by the vector's detectors.

The decision is taken on the text states that a model call receives, before anything is edited, and holds at every hook
point of the call. The category "all", fitted on all others together, may act where any of them may, or by its own
detector alone if the vector says so (`Detectors.whole_alone`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..errors import MismatchError
from ..vectors.detector import Detectors
from ..vectors.vector import WHOLE, SafetyVector
from .interventions import Intervention, pooled


@dataclass(frozen=True, eq=False)
class PromptGate:
    """All detectors of a vector, stacked: `directions` (C, D), other fields (C,), float32 on one device.

    threshold: in standard deviations; a category may act below it. whole_alone: as of `Detectors`.
    """

    directions: torch.Tensor
    center: torch.Tensor
    std: torch.Tensor
    threshold: torch.Tensor
    categories: tuple[str, ...]
    whole_alone: bool = False


@dataclass(frozen=True, eq=False)
class Decision:
    """What a gate decided for B prompts. z: (B, 1, C) distances from the benign mean. opened: (B, 1, C) boolean."""

    z: torch.Tensor
    opened: torch.Tensor
    categories: tuple[str, ...]

    def of(self, categories: Sequence[str]) -> Decision:
        """The decision on these categories, in their order."""
        columns = [self.categories.index(name) for name in categories]
        return Decision(self.z[..., columns], self.opened[..., columns], tuple(categories))


def detectors_for(vector: SafetyVector, how: Intervention) -> Detectors | None:
    """The detectors that decide; None under another gate.

    Raises:
        MismatchError: the gate is `prompt` and the vector has no detectors.
    """
    if how.gate != "prompt":
        return None
    if vector.detectors is None:
        raise MismatchError(
            "The gate 'prompt' needs a vector with detectors, and this one has none. Choose the gate 'pooled', or make "
            "the vector anew with this version's fit."
        )
    return vector.detectors


def make_gate(detectors: Detectors, how: Intervention, device: torch.device | str = "cpu") -> PromptGate:
    """The gate with the thresholds that `how` asks for."""
    chosen = list(detectors.categories.values())
    thresholds = [one.threshold(how.false_alarm) if how.false_alarm else how.threshold for one in chosen]
    return PromptGate(
        directions=torch.stack([one.direction for one in chosen]).to(device),
        center=torch.stack([one.center for one in chosen]).to(device),
        std=torch.stack([one.std for one in chosen]).to(device),
        threshold=torch.tensor(thresholds, dtype=torch.float32, device=device),
        categories=tuple(detectors.categories),
        whole_alone=detectors.whole_alone,
    )


def decide(states: torch.Tensor, mask: torch.Tensor | None, gate: PromptGate) -> Decision:
    """Decide for text states (B, N, D). mask: (B or 1, N, 1) boolean, the prompt's own tokens; None: all.

    A prompt without tokens opens nothing.
    """
    p = states.to(torch.float32) @ gate.directions.T
    z = (pooled(p, mask) - gate.center) / gate.std
    opened = z < gate.threshold
    if mask is not None:
        opened = opened & mask.any(dim=1, keepdim=True)
    if WHOLE in gate.categories and not gate.whole_alone:
        opened[..., gate.categories.index(WHOLE)] = opened.any(dim=-1)
    return Decision(z, opened, gate.categories)
