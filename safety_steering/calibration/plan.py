"""How many videos each stage of a calibration gets, and which settings it tries: coarse first, then fine.

    unsteered   every prompt that the finals use
    coarse      places x strengths on few prompts; as many as the budget allows, thinned evenly, the usual place kept
    fine        around the best of them: other windows and interventions, strengths between, the neighbouring places
    finals      the best few on every prompt

A budget counts videos. The same budget, space and verdicts always give the same plan, so a stopped calibration that is
started again goes through the same settings.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TypeVar

from ..activations import UNSAFE, Row
from ..errors import SafetySteeringError
from .space import SearchSpace, Setting

FINALISTS = 4
FEWEST = 2  # prompts a side, below which no rate means anything
COARSE_PROMPTS = 4  # prompts a side that the coarse stage should have before it takes more settings
COARSE_SHARE = 0.65  # of the videos that searching gets
FINAL_SHARE = 24  # a final's prompts a side are the budget by this
Item = TypeVar("Item")


@dataclass(frozen=True)
class Plan:
    """Rows for the search and for the finals (which begin with those), and the videos that coarse and fine may make."""

    searched: tuple[Row, ...]
    final: tuple[Row, ...]
    coarse: int
    search: int


def plan_videos(rows: Sequence[Row], space: SearchSpace, budget: int) -> Plan:
    """Share a budget of videos among the stages.

    Raises:
        SafetySteeringError: unsafe or benign prompts are missing, or the budget is too small for anything.
    """
    most = max(Counter("unsafe" if row.label == UNSAFE else "benign" for row in rows).values(), default=0)
    final = first_rows(rows, min(most, max(FEWEST, budget // FINAL_SHARE)))
    if len({row.label for row in final}) < 2:
        raise SafetySteeringError(
            f"There are {len(rows)} prompts to calibrate on, and not both unsafe and benign ones among them. Load "
            "pairs with a validation split."
        )
    fewest = len(first_rows(rows, FEWEST))
    search = budget - len(final) * (1 + FINALISTS)
    grid = len(space.places) * len(space.strengths)
    if search < fewest * min(2, grid):
        raise SafetySteeringError(
            f"A budget of {budget} videos is too small for {len(rows)} prompts and {grid} settings. Allow at least "
            f"{_least(rows, fewest, grid)}."
        )
    wanted = search // (2 * (grid + FINALISTS))
    each = min(max(wanted, COARSE_PROMPTS), search // (2 * min(2, grid)))
    searched = first_rows(final, max(FEWEST, each))
    return Plan(searched, final, max(int(search * COARSE_SHARE), min(2, grid) * len(searched)), search)


def _least(rows: Sequence[Row], fewest: int, grid: int) -> int:
    """The smallest budget that `plan_videos` takes for few prompts."""
    return len(first_rows(rows, FEWEST)) * (1 + FINALISTS) + fewest * min(2, grid)


def first_rows(rows: Sequence[Row], count: int) -> tuple[Row, ...]:
    """The first `count` unsafe and the first `count` benign rows, in an order that takes the categories in turn.

    The order depends on categories and pairs only, so that twins are taken together, and that fewer are always the
    first of more.
    """
    unsafe = [row for row in rows if row.label == UNSAFE]
    benign = [row for row in rows if row.label != UNSAFE]
    return tuple(chain(*(_in_turn(side)[:count] for side in (unsafe, benign))))


def _in_turn(rows: Sequence[Row]) -> list[Row]:
    turn: Counter[str] = Counter()
    placed: list[tuple[int, str, str, Row]] = []
    for row in sorted(rows, key=lambda row: hashlib.sha256(f"{row.category}\n{row.pair or row.id}".encode()).digest()):
        placed.append((turn[row.category], row.category, row.id, row))
        turn[row.category] += 1
    return [row for *_, row in sorted(placed, key=lambda entry: entry[:3])]


def coarse_grid(space: SearchSpace, settings: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Indices of places, and strengths, of which there are at most `settings` pairs (at least one place and two
    strengths): all places with fewer strengths rather than the other way round."""
    places, strengths = len(space.places), len(space.strengths)
    kept = next((count for count in range(strengths, 1, -1) if count * places <= settings), min(2, strengths))
    where = thinned(range(places), max(1, min(places, settings // kept)))
    if space.usual not in where:
        nearest = min(where, key=lambda place: abs(place - space.usual))
        where = sorted({*where, space.usual} - {nearest})
    return tuple(where), tuple(thinned(space.strengths, kept))


def thinned(items: Sequence[Item], count: int) -> list[Item]:
    """`count` of the items, spread evenly."""
    return [items[math.floor((i + 0.5) * len(items) / count)] for i in range(count)]


def coarse_settings(space: SearchSpace, places: Sequence[int], strengths: Sequence[float]) -> list[Setting]:
    """The coarse stage's settings: the first window and intervention everywhere."""
    how = (space.windows[0], space.interventions[0])
    return [Setting(space.places[place], strength, *how) for place in places for strength in strengths]


def fine_settings(space: SearchSpace, ranked: Sequence[Setting], other_places: bool) -> Iterator[Setting]:
    """What to try around settings, the best of which stands first; each once, and none of `ranked`.

    other_places: whether the places beside theirs are tried too.
    """
    seen = set(ranked)
    for setting in ranked:
        near = [
            *(replace(setting, intervention=how) for how in space.interventions),
            *(replace(setting, window=window) for window in space.windows),
            *(replace(setting, strength=strength) for strength in _beside(space.strengths, setting.strength)),
        ]
        if other_places:
            at = space.places.index(setting.place)
            near += [replace(setting, place=place) for place in space.places[max(0, at - 1) : at + 2]]
        for one in near:
            if one not in seen:
                seen.add(one)
                yield one


def _beside(strengths: Sequence[float], strength: float) -> list[float]:
    """The strengths halfway to the neighbours on the ladder, by their ratio; and the neighbours themselves."""
    lower = [one for one in strengths if one < strength][-1:]
    higher = [one for one in strengths if one > strength][:1]
    between = [float(f"{math.sqrt(one * strength):.2g}") for one in higher + lower]
    return [one for one in [*between, *higher, *lower] if one != strength]
