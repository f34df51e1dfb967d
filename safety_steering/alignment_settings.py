"""How an alignment is fitted. Plain data."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .alignment_methods import METHODS
from .errors import SafetySteeringError

MIN_ANCHORS = 16


@dataclass(frozen=True)
class AlignmentSettings:
    """method: one of `METHODS`. rank belongs to reduced_rank (0: chosen), hidden to mlp.

    held_out: share of the anchors that the fit is judged on. seed: which of them, and the mlp's first weights.

    Raises:
        SafetySteeringError: on construction, for an unknown method or a value out of range.
    """

    method: str = "ridge"
    rank: int = 0
    hidden: int = 256
    held_out: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise SafetySteeringError(
                f"The method '{self.method}' is none of {', '.join(METHODS)}. Choose one of them."
            )
        if not (math.isfinite(self.held_out) and 0 < self.held_out <= 0.5):
            raise SafetySteeringError(
                f"held_out is {self.held_out}; give a share above 0 and at most 0.5, such as 0.2."
            )
        if self.rank < 0 or self.hidden < 1:
            raise SafetySteeringError(
                f"rank is {self.rank} and hidden {self.hidden}; rank must be 0 (chosen) or more, hidden 1 or more."
            )
