"""A mix: weights over a vector's categories, written as one string, `violence=1, sexual=0.5`.

The string gives the weights of the categories that it names. Every other category has the weight that the vector
suggests for it, times the preset:

    weight(c) = string(c) if named, else preset * suggested(c)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ..errors import MismatchError, SafetySteeringError, shortened

CUSTOM = "custom"
MAX_WEIGHT = 50.0  # as far as Apply's strength goes; more only overflows
# preset -> what the vector's suggested weights are multiplied by; the same table is in docs/mixing.md
PRESETS: Mapping[str, float] = MappingProxyType({"off": 0.0, "light": 0.5, "standard": 1.0, "strict": 1.5, CUSTOM: 0.0})


@dataclass(frozen=True)
class Mix:
    """The weights that a preset and a mix string give for one vector.

    weights: category -> weight, for every category of the vector. unknown: the string's weights for names that the
        vector lacks; they steer nothing.
    """

    weights: Mapping[str, float]
    unknown: Mapping[str, float]

    def summary(self) -> str:
        """Which categories are steered, which are not, and which the vector lacks: up to three lines."""
        steered = {name: weight for name, weight in self.weights.items() if weight}
        # "all" is fitted on every category: with it, none is left alone
        alone = [name for name, weight in self.weights.items() if not weight and not steered.get("all")]
        lines = [f"Steers {format_mix(steered)}." if steered else "Off: every category weighs 0, nothing is steered."]
        if steered and alone:
            lines.append(f"Left alone: {', '.join(alone)}.")
        if self.unknown:
            lines.append(f"NOT steered: {format_mix(self.unknown)}. This vector only knows {', '.join(self.weights)}.")
        return "\n".join(lines)


def resolve_mix(
    preset: str, text: str, categories: Iterable[str], suggested: Mapping[str, float] = MappingProxyType({})
) -> Mix:
    """The weights that a preset and a mix string give a vector's categories.

    suggested: category -> weight, those not named weigh 0; empty: every category weighs 1.

    Raises:
        SafetySteeringError: the preset is unknown, the string does not parse, or it is empty and the preset custom.
        MismatchError: the string asks for categories, and the vector has none of those.
    """
    if preset not in PRESETS:
        raise SafetySteeringError(f"The mix has no preset '{shortened(preset)}'. Choose one of: {', '.join(PRESETS)}.")
    known = tuple(categories)
    written = parse_mix(text)
    if preset == CUSTOM and not written:
        raise SafetySteeringError(
            f"The preset is {CUSTOM} and the mix is empty. Write weights into it, such as {known[0]}=1, or choose the "
            "preset off."
        )
    usual = suggested or dict.fromkeys(known, 1.0)
    weights = {name: written.get(name, PRESETS[preset] * usual.get(name, 0.0)) for name in known}
    unknown = {name: weight for name, weight in written.items() if name not in known}
    if any(unknown.values()) and not any(weights.values()):
        raise MismatchError(
            f"The mix asks for {shortened(', '.join(unknown))} and for nothing that this vector knows "
            f"({', '.join(known)}), so nothing would be steered. Correct the names; to steer nothing on purpose, "
            "clear the mix and choose off."
        )
    return Mix(MappingProxyType(weights), MappingProxyType(unknown))


def parse_mix(text: str) -> dict[str, float]:
    """Parse a mix string into weights, in the order written.

    Raises:
        SafetySteeringError: a part is not `category=number`, a number is not finite, or a category is named twice.
    """
    weights: dict[str, float] = {}
    for part in (piece.strip() for piece in text.split(",")):
        if not part:
            continue
        name, equals, number = (side.strip() for side in part.partition("="))
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not name or not equals or not math.isfinite(weight):
            raise SafetySteeringError(
                f"The mix has a part '{shortened(part)}' that does not read as category=number. "
                "Write it like: violence=1, sexual=0.5"
            )
        if name in weights:
            raise SafetySteeringError(f"The mix names the category '{shortened(name)}' twice. Keep one of them.")
        weights[name] = weight
    return weights


def format_mix(weights: Mapping[str, float]) -> str:
    """Write weights as a mix string that `parse_mix` reads back to the same floats."""
    return ", ".join(f"{name}={_number(weight)}" for name, weight in weights.items())


def check_mix(weights: Mapping[str, float], categories: Iterable[str]) -> None:
    """Check weights against a vector's categories.

    Raises:
        MismatchError: a category is not among `categories`.
        SafetySteeringError: a weight is not a finite number, or beyond `MAX_WEIGHT`.
    """
    known = tuple(categories)
    unknown = [name for name in weights if name not in known]
    if unknown:
        raise MismatchError(
            f"The mix names '{shortened(', '.join(unknown))}', which this vector lacks. Its categories: "
            f"{', '.join(known)}."
        )
    for name, weight in weights.items():
        if not math.isfinite(weight):
            raise SafetySteeringError(f"The mix gives '{name}' the weight {weight}, which is not a finite number.")
        if abs(weight) > MAX_WEIGHT:
            raise SafetySteeringError(
                f"The mix gives '{name}' the weight {weight:g}. Weights go from {-MAX_WEIGHT:g} to {MAX_WEIGHT:g}, "
                "usual ones from 0 to 2."
            )


def _number(weight: float) -> str:
    return str(int(weight)) if weight == int(weight) else repr(weight)
