"""A mix: weights over a vector's categories, written as one string, `violence=1, sexual=0.5`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from .errors import MismatchError, SafetySteeringError


def parse_mix(text: str) -> dict[str, float]:
    """Parse a mix string into weights, in the order written.

    Raises:
        SafetySteeringError: a part is not `category=number`, a number is not finite, or a category stands twice.
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
                f"The mix has a part '{part}' that does not read as category=number. "
                "Write it like: violence=1, sexual=0.5"
            )
        if name in weights:
            raise SafetySteeringError(f"The mix names the category '{name}' twice. Keep one of them.")
        weights[name] = weight
    return weights


def format_mix(weights: Mapping[str, float]) -> str:
    """Write weights as a mix string that `parse_mix` reads back to the same floats."""
    return ", ".join(f"{name}={_number(weight)}" for name, weight in weights.items())


def check_mix(weights: Mapping[str, float], categories: Iterable[str]) -> None:
    """Check weights against a vector's categories.

    Raises:
        MismatchError: a category is not among `categories`.
        SafetySteeringError: a weight is not a finite number.
    """
    known = tuple(categories)
    unknown = [name for name in weights if name not in known]
    if unknown:
        raise MismatchError(
            f"The mix names '{', '.join(unknown)}', which this vector lacks. Its categories: {', '.join(known)}."
        )
    for name, weight in weights.items():
        if not math.isfinite(weight):
            raise SafetySteeringError(f"The mix gives '{name}' the weight {weight}, which is not a finite number.")


def _number(weight: float) -> str:
    return str(int(weight)) if weight == int(weight) else repr(weight)
