"""The search space of a calibration: sets of hook points, strengths, windows and interventions.

Each is written as text, as a user types it into a node:

    hook points    conditioning, 0.5, block.blocks.3.image+block.blocks.4.image    each part is a set; all; all blocks;
                   cross_attention                                                 all of that kind, in one set
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
from ..vectors.suggestion import FALSE_ALARM, TOKEN_THRESHOLD

BLOCKS = "all blocks"
JOINED = "+"
HookPoints = tuple[HookPoint, ...]  # steered together
Window = tuple[float, float]
Parsed = TypeVar("Parsed")
DEFAULT = Intervention()


@dataclass(frozen=True)
class Setting:
    """One way to steer. hook_points: steered together. strength: in gaps; 0 is unsteered. window: of denoising.

    factors: kind of hook point -> factor of the strength there, where it is not 1.
    """

    hook_points: HookPoints = ()
    strength: float = 0.0
    window: Window = (0.0, 1.0)
    intervention: Intervention = DEFAULT
    factors: tuple[tuple[str, float], ...] = ()

    @property
    def strengths(self) -> dict[str, float]:
        """Hook point -> its own strength, where a factor changes it."""
        factors = dict(self.factors)
        return {point: self.strength * factors[point.kind] for point in self.hook_points if point.kind in factors}

    @property
    def name(self) -> str:
        """The setting's name in tables and on disk. Equal settings have equal names."""
        if not self.strength:
            return "unsteered"
        start, end = self.window
        how = describe_intervention(self.intervention)
        return f"{self.strength:g} x {how} at {joined(self.hook_points)}{self.shares}, window {start:g}-{end:g}"

    @property
    def shares(self) -> str:
        """The factors in words; empty without one."""
        return "".join(f", {factor:g} of it at {kind}" for kind, factor in self.factors)


UNSTEERED = Setting()


@dataclass(frozen=True)
class SearchSpace:
    """Every value that a calibration may try. The coarse stage uses the first window and intervention.

    hook_points: the sets to choose from. usual: index of the set that Apply takes without a calibration.

    Raises:
        SafetySteeringError: on construction, if a list is empty or a strength is not a positive finite number.
    """

    hook_points: tuple[HookPoints, ...]
    strengths: tuple[float, ...]
    windows: tuple[Window, ...] = ((0.0, 0.5),)
    interventions: tuple[Intervention, ...] = (DEFAULT,)
    usual: int = 0

    def __post_init__(self) -> None:
        if not (self.hook_points and self.strengths and self.windows and self.interventions):
            raise SafetySteeringError(
                "Name at least one hook point, one strength, one window and one intervention to try."
            )
        if any(not math.isfinite(strength) or strength <= 0 for strength in self.strengths):
            raise SafetySteeringError(
                f"The strengths are {', '.join(map('{:g}'.format, self.strengths))}; each must be more than 0. The "
                "unsteered model is always measured too."
            )
        object.__setattr__(self, "strengths", tuple(sorted(set(self.strengths))))


def read_space(
    available: Sequence[HookPoint],
    block_counts: Mapping[str, int],
    *,
    hook_points: str,
    strengths: str,
    windows: str,
    interventions: str,
) -> SearchSpace:
    """Parse the search space that a user wrote, for a vector with the hook points `available`.

    Raises:
        SafetySteeringError: a text is not in the form of this module's docstring, or the vector lacks a hook point.
    """
    found = tuple(dict.fromkeys(one for part in _parts(hook_points) for one in _sets(part, available, block_counts)))
    single = [points[0] for points in found if len(points) == 1]
    auto = select_hook_points("auto", single, block_counts) if single else ()
    usual = found.index(auto) if auto in found else 0
    return SearchSpace(
        found,
        tuple(_read(strengths, float, "strengths", "0.5, 1, 2")),
        tuple(_read(windows, _window, "windows", "0-0.5, 0-1")),
        tuple(_read(interventions, parse_intervention, "interventions", "add token, clamp none pooled -2")),
        usual,
    )


def parse_intervention(text: str) -> Intervention:
    """Parse an intervention: its kind and, in any order, a norm, a gate and the gate's threshold.

    The gate prompt takes two numbers: its false alarm, then its token threshold. What is left out has the default of
    Apply.

    Raises:
        SafetySteeringError: a word is unknown or repeated, or the kind is missing.
    """
    given: dict[str, Any] = {}
    numbers = ("false_alarm", "token_threshold") if "prompt" in text.split() else ("threshold",)
    for word in text.split():
        # "token" names a norm and a gate: its first occurrence is the norm, as on Apply
        kinds = [
            name
            for name, known in (("kind", INTERVENTIONS), ("norm", NORMS), ("gate", GATES))
            if word in known and name not in given
        ]
        free = [name for name in numbers if name not in given]
        name, value = (kinds[0], word) if kinds else (free[0] if free else "", _number(word))
        if not name or value is None:
            raise SafetySteeringError(_unread(text))
        given[name] = value
    if "kind" not in given:
        raise SafetySteeringError(_unread(text))
    if given.get("gate") == "prompt":
        given = {"false_alarm": FALSE_ALARM, "token_threshold": TOKEN_THRESHOLD} | given
    return Intervention(**given)


def describe_intervention(intervention: Intervention) -> str:
    """The text that `parse_intervention` reads back."""
    numbers: tuple[float | None, ...] = (intervention.threshold,)
    if intervention.gate == "prompt":
        numbers = (intervention.false_alarm, intervention.token_threshold)
    gate = [intervention.gate, *(f"{number:g}" for number in numbers if number is not None)]
    return " ".join([intervention.kind, intervention.norm, *(gate if intervention.gate != "off" else ())])


def joined(hook_points: HookPoints) -> str:
    """A set of hook points as one text."""
    return JOINED.join(hook_points)


def _sets(part: str, available: Sequence[HookPoint], block_counts: Mapping[str, int]) -> list[HookPoints]:
    if part == BLOCKS:
        blocks: list[HookPoints] = [(name,) for name in available if name.is_block]
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
        f"'{text[:80]}' is not an intervention. Write its kind ({', '.join(INTERVENTIONS)}), and if you like a norm "
        f"({', '.join(NORMS)}), a gate ({', '.join(GATES)}) and the gate's threshold: clamp none pooled -2. The gate "
        "prompt takes a false alarm and a token threshold: clamp none prompt 0.01 -2"
    )
