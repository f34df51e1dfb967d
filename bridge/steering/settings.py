"""How to steer: what a user chose on Apply Safety Steering, or what is recommended for the vector."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ...safety_steering.errors import SafetySteeringError
from ...safety_steering.hook_point import HookPoint
from ...safety_steering.steering.interventions import Intervention, suggested
from ...safety_steering.vectors.suggestion import recommended
from ...safety_steering.vectors.vector import SafetyVector
from .branches import BRANCHES

LEVELS = (0.0, 2.0)


@dataclass(frozen=True)
class SteeringSettings:
    """strength in gaps; window in fractions of denoising, 0 is the start; hook_points by name.

    strengths: hook point -> its own strength, where it differs from `strength`; other names are ignored.
    level, basis: of recommended settings, the factor of their strength and the suggestion's basis; None and empty if a
    user chose.

    Raises:
        SafetySteeringError: on construction, if a value is out of its range.
    """

    strength: float
    hook_points: tuple[HookPoint, ...]
    intervention: Intervention = field(default_factory=Intervention)
    window: tuple[float, float] = (0.0, 0.5)
    branch: str = "both"
    strengths: Mapping[str, float] = field(default_factory=dict)
    level: float | None = None
    basis: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "hook_points", tuple(map(HookPoint, self.hook_points)))
        start, end = self.window
        for strength in (self.strength, *self.strengths.values()):
            if not math.isfinite(strength):
                raise SafetySteeringError(f"The strength must be a finite number, not {strength}.")
        if not 0 <= start < end <= 1:
            raise SafetySteeringError(
                f"The window runs from {start:g} to {end:g}. It must start before it ends, between 0 and 1."
            )
        if self.branch not in BRANCHES:
            raise SafetySteeringError(f"The branch is '{self.branch}', expected one of {', '.join(BRANCHES)}.")
        if not self.hook_points:
            raise SafetySteeringError("No hook point is left to steer at.")

    def strength_at(self, hook_point: str) -> float:
        """The strength at a hook point, in gaps."""
        return self.strengths.get(hook_point, self.strength)

    @property
    def off(self) -> bool:
        """Whether the strength is 0 at every hook point."""
        return not any(map(self.strength_at, self.hook_points))


def recommended_settings(vector: SafetyVector, level: float = 1.0) -> SteeringSettings:
    """The settings recommended for a vector, their strength times `level`; 0 is off, bit for bit.

    Raises:
        SafetySteeringError: the level is not 0 to 2, or the vector's suggestion names something unknown.
    """
    lowest, highest = LEVELS
    if not lowest <= level <= highest:
        raise SafetySteeringError(
            f"The level is {level}. Give a number from {lowest:g} (off) to {highest:g} (twice as strong); 1 is as "
            "recommended."
        )
    return _at_level(vector, level)


def varied(vector: SafetyVector, settings: SteeringSettings, number: float) -> SteeringSettings:
    """The settings at another strength or, if they are recommended ones, at another level of any size."""
    return replace(settings, strength=number) if settings.level is None else _at_level(vector, number)


def _at_level(vector: SafetyVector, level: float) -> SteeringSettings:
    found = recommended(vector)
    return SteeringSettings(
        strength=found.strength * level,
        hook_points=tuple(map(HookPoint, found.hook_points)),
        intervention=suggested(found),
        window=found.window,
        branch=found.branch,
        strengths={name: strength * level for name, strength in found.strengths.items()},
        level=level,
        basis=found.basis,
    )
