"""What a calibration searches: ways to steer, made of a place, a strength, a window and an intervention.

All of it is written as text, as a person types it into a node:

    places         conditioning, 0.5, block.blocks.3.image+block.blocks.4.image    one candidate a part; all; all blocks
    strengths      0.5, 1, 2, 4
    windows        0-0.5, 0-1                                                       fractions of denoising
    interventions  add token, clamp none pooled -2                                  kind, norm, gate, threshold
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ..errors import SafetySteeringError
from ..hook_point import ALL, HookPoint, select_hook_points
from ..steering.interventions import GATES, INTERVENTIONS, NORMS, Intervention

BLOCKS = "all blocks"
JOINED = "+"
Place = tuple[HookPoint, ...]
Window = tuple[float, float]
Parsed = TypeVar("Parsed")
DEFAULT = Intervention()


@dataclass(frozen=True)
class Setting:
    """One way to steer; strength 0 is no steering at all. place: the hook points steered at together."""

    place: Place = ()
    strength: float = 0.0
    window: Window = (0.0, 1.0)
    intervention: Intervention = DEFAULT

    @property
    def name(self) -> str:
        """What the setting is called in tables and on disk: the same text for the same setting."""
        if not self.strength:
            return "unsteered"
        start, end = self.window
        how = describe_intervention(self.intervention)
        return f"{self.strength:g} x {how} at {place_name(self.place)}, window {start:g}-{end:g}"


UNSTEERED = Setting()


@dataclass(frozen=True)
class SearchSpace:
    """Every value that a calibration may try; the first window and intervention are what it tries first.

    usual: index of the place that is taken without a calibration.

    Raises:
        SafetySteeringError: on construction, if something is missing or no number of gaps.
    """

    places: tuple[Place, ...]
    strengths: tuple[float, ...]
    windows: tuple[Window, ...] = ((0.0, 0.5),)
    interventions: tuple[Intervention, ...] = (DEFAULT,)
    usual: int = 0

    def __post_init__(self) -> None:
        if not (self.places and self.strengths and self.windows and self.interventions):
            raise SafetySteeringError("A calibration needs a place, a strength, a window and an intervention to try.")
        if any(not math.isfinite(strength) or strength <= 0 for strength in self.strengths):
            raise SafetySteeringError(
                f"The strengths are {', '.join(map('{:g}'.format, self.strengths))}; each must be more than 0. Without "
                "steering is always measured too."
            )
        object.__setattr__(self, "strengths", tuple(sorted(set(self.strengths))))


def read_space(
    available: Sequence[HookPoint],
    block_counts: Mapping[str, int],
    *,
    places: str,
    strengths: str,
    windows: str,
    interventions: str,
) -> SearchSpace:
    """The search space that a user wrote, for a vector with the hook points `available`.

    Raises:
        SafetySteeringError: a text does not read as this module's docstring says, or the vector lacks a place.
    """
    found = tuple(dict.fromkeys(place for part in _parts(places) for place in _places(part, available, block_counts)))
    single = [place[0] for place in found if len(place) == 1]
    usual = found.index(select_hook_points("auto", single, block_counts)) if single else 0
    return SearchSpace(
        found,
        tuple(_read(strengths, float, "strengths", "0.5, 1, 2")),
        tuple(_read(windows, _window, "windows", "0-0.5, 0-1")),
        tuple(_read(interventions, parse_intervention, "interventions", "add token, clamp none pooled -2")),
        usual,
    )


def parse_intervention(text: str) -> Intervention:
    """Read `kind`, then in any order a norm, a gate and its threshold; what is not said is as on Apply by default.

    Raises:
        SafetySteeringError: a word is none of them, or one is said twice.
    """
    said: dict[str, Any] = {}
    for word in text.split():
        # "token" is a norm and a gate; the norm comes first, as on Apply
        kinds = [
            name
            for name, known in (("kind", INTERVENTIONS), ("norm", NORMS), ("gate", GATES))
            if word in known and name not in said
        ]
        name, value = (kinds[0], word) if kinds else ("threshold", _number(word))
        if name in said or value is None:
            raise SafetySteeringError(_unread(text))
        said[name] = value
    if "kind" not in said:
        raise SafetySteeringError(_unread(text))
    return Intervention(**said)


def describe_intervention(intervention: Intervention) -> str:
    """An intervention as `parse_intervention` reads it."""
    gate = f" {intervention.gate} {intervention.threshold:g}" if intervention.gate != "off" else ""
    return f"{intervention.kind} {intervention.norm}{gate}"


def place_name(place: Place) -> str:
    """A place as one text."""
    return JOINED.join(place)


def _places(part: str, available: Sequence[HookPoint], block_counts: Mapping[str, int]) -> list[Place]:
    if part == BLOCKS:
        blocks: list[Place] = [(name,) for name in available if name.is_block]
        if not blocks:
            raise SafetySteeringError(f"This vector has no blocks. It has: {', '.join(available)}.")
        return blocks
    if part == ALL:
        return [(name,) for name in available]
    return [select_hook_points(",".join(part.split(JOINED)), available, block_counts)]


def _window(text: str) -> Window:
    start, end = (float(edge) for edge in text.split("-"))
    if not 0 <= start < end <= 1:
        raise ValueError(text)
    return start, end


def _read(text: str, parse: Callable[[str], Parsed], name: str, example: str) -> list[Parsed]:
    try:
        return [parse(part) for part in dict.fromkeys(_parts(text))]
    except SafetySteeringError:
        raise
    except ValueError as error:
        raise SafetySteeringError(f"The {name} '{text[:80]}' cannot be read. Write them like: {example}") from error


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def _unread(text: str) -> str:
    return (
        f"'{text[:80]}' is no intervention. Write its kind ({', '.join(INTERVENTIONS)}), and if you like a norm "
        f"({', '.join(NORMS)}), a gate ({', '.join(GATES)}) and the gate's threshold: clamp none pooled -2"
    )
