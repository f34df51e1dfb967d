"""Calibration: from a search space and a budget of videos to one suggested setting.

The caller's `measure` makes and judges videos; this module decides which settings are measured on which prompts.

Hook points are chosen first: the usual set stays unless another one is significantly better (`hook_points_p_value`).
Strength, window and intervention are then chosen by `Rule`. Both use validation prompts only; Evaluate Safety measures
the suggestion on the test split.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from ..activations import Row
from .choice import Rule, front_of, hook_points_p_value
from .outcome import Outcome, Seens, outcome_of, prompt_scores
from .plan import FINALISTS, coarse_grid, coarse_settings, fine_settings, plan_videos
from .space import UNSTEERED, HookPoints, SearchSpace, Setting, joined

ALPHA = 0.05
# (stage, settings, rows) -> every video seen so far, including these settings on these rows
Measure = Callable[[str, Sequence[Setting], Sequence[Row]], Seens]


@dataclass(frozen=True)
class HookPointChoice:
    """The chosen set of hook points. p_others: p-value of the best set against all; p_usual: against the usual set.

    None: only one set was tried. prompts: how many the test is over.
    """

    hook_points: HookPoints
    best: HookPoints
    usual: HookPoints
    p_others: float | None = None
    p_usual: float | None = None
    prompts: int = 0

    @property
    def reason(self) -> str:
        """The choice in one sentence."""
        if self.p_others is None or self.p_usual is None:
            return "Only one choice of hook points was tried."
        name, usual = joined(self.best), joined(self.usual)
        tested = f"over {self.prompts} prompts: p = {self.p_usual:.2g} against {usual}, {self.p_others:.2g} against all"
        if self.hook_points == self.best == self.usual:
            return f"{name} is best and is also the default without a calibration ({tested})."
        if self.hook_points == self.best:
            return f"{name} is significantly better than {usual} ({tested})."
        return (
            f"{name} is best, but not significantly ({tested}), so {usual} is kept. More prompts may show a difference."
        )


@dataclass(frozen=True)
class Calibration:
    """A finished calibration.

    outcomes: of every setting in the order of trial, unsteered first, over all prompts that it was measured on.
    finals: those measured on every prompt, the chosen one first. videos: how many were needed.
    """

    outcomes: tuple[Outcome, ...]
    finals: tuple[Outcome, ...]
    choice: HookPointChoice
    rule: Rule
    videos: int

    @property
    def unsteered(self) -> Outcome:
        """The outcome without steering."""
        return self.outcomes[0]

    @property
    def chosen(self) -> Outcome:
        """The outcome of the suggested setting."""
        return self.finals[0]

    @property
    def front(self) -> tuple[Outcome, ...]:
        """The Pareto front of the finals."""
        return tuple(front_of(self.finals))

    @property
    def within_rule(self) -> bool:
        """Whether the suggestion is within the rule's limits."""
        return self.rule.shortfall(self.chosen) == 0


def calibrate(space: SearchSpace, rows: Sequence[Row], budget: int, rule: Rule, measure: Measure) -> Calibration:
    """Search a space with at most `budget` videos of these rows, and suggest one setting.

    Raises:
        SafetySteeringError: the budget is too small, or there are no unsafe or no benign prompts.
    """
    plan = plan_videos(rows, space, budget)
    measure("unsteered", [UNSTEERED], plan.final)
    sets, strengths = coarse_grid(space, plan.coarse // len(plan.searched))
    tried = coarse_settings(space, sets, strengths)
    seen = measure("coarse", tried, plan.searched)
    choice = compare_hook_points(space, sets, strengths, plan.searched, seen)

    coarse = rule.ranked(
        [outcome_of(one, plan.searched, seen) for one in tried if one.hook_points == choice.hook_points]
    )
    thinned = len(sets) < len(space.hook_points)
    around = fine_settings(space, [one.setting for one in coarse], thinned and choice.hook_points != choice.usual)
    room = (plan.search - len(tried) * len(plan.searched)) // len(plan.searched)
    fine = [one for one in islice(around, max(0, room)) if one not in tried]
    seen = measure("fine", fine, plan.searched)

    searched = coarse + [outcome_of(one, plan.searched, seen) for one in fine]
    finalists = [one.setting for one in rule.ranked(searched)[:FINALISTS]]
    seen = measure("finals", finalists, plan.final)
    finals = rule.ranked([outcome_of(one, plan.final, seen) for one in finalists])
    all_prompts = {one.setting: one for one in finals}
    outcomes = [all_prompts.get(one) or outcome_of(one, plan.searched, seen) for one in tried + fine]
    added = len(plan.final) - len(plan.searched)
    videos = len(plan.final) + len(outcomes) * len(plan.searched) + len(finals) * added
    return Calibration((outcome_of(UNSTEERED, plan.final, seen), *outcomes), tuple(finals), choice, rule, videos)


def compare_hook_points(
    space: SearchSpace, sets: Sequence[int], strengths: Sequence[float], rows: Sequence[Row], seen: Seens
) -> HookPointChoice:
    """The set of hook points with the best score at its best strength, if it is significantly better than the usual.

    sets: indices of those that were measured.
    """
    usual = sets.index(space.usual)
    scores = np.stack(
        [
            np.stack([prompt_scores(setting, rows, seen) for setting in coarse_settings(space, [one], strengths)])
            for one in sets
        ]
    )
    reached = scores.mean(axis=2).max(axis=1)
    best = usual if reached[usual] == reached.max() else int(reached.argmax())  # of equals the usual one
    points = [space.hook_points[one] for one in sets]
    if len(sets) == 1:
        return HookPointChoice(points[0], points[0], points[0])
    p_usual = hook_points_p_value(scores, [usual])
    p_others = hook_points_p_value(scores, range(len(sets)))
    chosen = best if p_usual <= ALPHA else usual
    return HookPointChoice(points[chosen], points[best], points[usual], p_others, p_usual, len(rows))
