"""How many videos each stage of a calibration gets, and which settings it tries.

    unsteered   every prompt that the finals use
    coarse      hook points x strengths on few prompts; thinned evenly if the budget is short, the usual set kept
    fine        around the best of them: other windows and interventions, strengths between, neighbouring hook points;
                for hook points of several kinds together, half and twice the strength at one kind
    finals      the best few on every prompt

A budget counts videos. The same budget, space and verdicts give the same plan, so that a stopped calibration can be
resumed.
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
FEWEST = 2  # prompts of each label, at least
COARSE_PROMPTS = 4  # prompts of each label that the coarse stage should have before it takes more settings
COARSE_SHARE = 0.65  # of the videos of the search
FINAL_SHARE = 24  # prompts of each label in the finals = budget / FINAL_SHARE
Item = TypeVar("Item")


@dataclass(frozen=True)
class Plan:
    """The rows of a calibration's stages.

    searched: of coarse and fine, the first of `final`. coarse: videos that the coarse stage may make. search: that
    coarse and fine may make together.
    """

    searched: tuple[Row, ...]
    final: tuple[Row, ...]
    coarse: int
    search: int


def plan_videos(rows: Sequence[Row], space: SearchSpace, budget: int) -> Plan:
    """Divide a budget of videos among the stages.

    Raises:
        SafetySteeringError: there are no unsafe or no benign prompts, or the budget is too small.
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
    grid = len(space.hook_points) * len(space.strengths)
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
    """The first `count` unsafe and the first `count` benign rows, taking the categories in turn.

    The order depends on categories and pairs only: twins come together, and a smaller count gives the first of a larger
    one.
    """
    unsafe = [row for row in rows if row.label == UNSAFE]
    benign = [row for row in rows if row.label != UNSAFE]
    return tuple(chain(*(_in_turn(side)[:count] for side in (unsafe, benign))))


def _in_turn(rows: Sequence[Row]) -> list[Row]:
    turn: Counter[str] = Counter()
    ranked: list[tuple[int, str, str, Row]] = []
    for row in sorted(rows, key=lambda row: hashlib.sha256(f"{row.category}\n{row.pair or row.id}".encode()).digest()):
        ranked.append((turn[row.category], row.category, row.id, row))
        turn[row.category] += 1
    return [row for *_, row in sorted(ranked, key=lambda entry: entry[:3])]


def coarse_grid(space: SearchSpace, settings: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Indices of sets of hook points, and strengths, of which there are at most `settings` pairs.

    At least one set and two strengths. Strengths are thinned before hook points are.
    """
    sets, strengths = len(space.hook_points), len(space.strengths)
    kept = next((count for count in range(strengths, 1, -1) if count * sets <= settings), min(2, strengths))
    chosen = thinned(range(sets), max(1, min(sets, settings // kept)))
    if space.usual not in chosen:
        nearest = min(chosen, key=lambda one: abs(one - space.usual))
        chosen = sorted({*chosen, space.usual} - {nearest})
    return tuple(chosen), tuple(thinned(space.strengths, kept))


def thinned(items: Sequence[Item], count: int) -> list[Item]:
    """`count` of the items, spread evenly."""
    return [items[math.floor((i + 0.5) * len(items) / count)] for i in range(count)]


def coarse_settings(space: SearchSpace, sets: Sequence[int], strengths: Sequence[float]) -> list[Setting]:
    """The settings of the coarse stage: all have the first window and intervention. sets: indices."""
    how = (space.windows[0], space.interventions[0])
    return [Setting(space.hook_points[one], strength, *how) for one in sets for strength in strengths]


def fine_settings(space: SearchSpace, ranked: Sequence[Setting], other_hook_points: bool) -> Iterator[Setting]:
    """The settings to try around `ranked` (best first), each once and without those of `ranked`.

    other_hook_points: whether neighbouring sets of hook points are tried too.
    """
    seen = set(ranked)
    for setting in ranked:
        near = [
            *(replace(setting, intervention=how) for how in space.interventions),
            *(replace(setting, window=window) for window in space.windows),
            *(replace(setting, strength=strength) for strength in _beside(space.strengths, setting.strength)),
            *_other_shares(setting),
        ]
        if other_hook_points:
            at = space.hook_points.index(setting.hook_points)
            near += [replace(setting, hook_points=points) for points in space.hook_points[max(0, at - 1) : at + 2]]
        for one in near:
            if one not in seen:
                seen.add(one)
                yield one


def _other_shares(setting: Setting) -> Iterator[Setting]:
    """Half and twice the strength at one kind of hook point, where a setting has several kinds."""
    factors, kinds = dict(setting.factors), dict.fromkeys(point.kind for point in setting.hook_points)
    for kind in kinds if len(kinds) > 1 else ():
        for factor in (0.5, 2.0):
            changed = factors | {kind: factors.get(kind, 1.0) * factor}
            kept = sorted((name, value) for name, value in changed.items() if value != 1)
            yield replace(setting, factors=tuple(kept))


def _beside(strengths: Sequence[float], strength: float) -> list[float]:
    """The neighbours of a strength in the list, and the geometric means between it and them."""
    lower = [one for one in strengths if one < strength][-1:]
    higher = [one for one in strengths if one > strength][:1]
    between = [float(f"{math.sqrt(one * strength):.2g}") for one in higher + lower]
    return [one for one in [*between, *higher, *lower] if one != strength]
