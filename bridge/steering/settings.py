"""How to steer: what a user chose on Apply Safety Steering."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ...safety_steering.errors import SafetySteeringError
from ...safety_steering.hook_point import HookPoint
from ...safety_steering.steering.interventions import Intervention
from .branches import BRANCHES


@dataclass(frozen=True)
class SteeringSettings:
    """strength in gaps; window in fractions of denoising, 0 is the start; hook_points by name.

    Raises:
        SafetySteeringError: on construction, if a value is out of its range.
    """

    strength: float
    hook_points: tuple[HookPoint, ...]
    intervention: Intervention = field(default_factory=Intervention)
    window: tuple[float, float] = (0.0, 0.5)
    branch: str = "both"

    def __post_init__(self) -> None:
        object.__setattr__(self, "hook_points", tuple(map(HookPoint, self.hook_points)))
        start, end = self.window
        if not math.isfinite(self.strength):
            raise SafetySteeringError(f"The strength must be a finite number, not {self.strength}.")
        if not 0 <= start < end <= 1:
            raise SafetySteeringError(
                f"The window runs from {start:g} to {end:g}. It must start before it ends, between 0 and 1."
            )
        if self.branch not in BRANCHES:
            raise SafetySteeringError(f"The branch is '{self.branch}', expected one of {', '.join(BRANCHES)}.")
        if not self.hook_points:
            raise SafetySteeringError("No hook point is left to steer at.")
