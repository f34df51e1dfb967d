"""Calibration: from a search space and a budget of videos to one suggested setting and the evidence for it.

Whoever calls this brings `measure`, which makes and judges videos; here is which of them, and what follows.

The place is chosen first and guarded: unless a place beats the usual one by more than chance (`place_test`), the usual
one stays. Strength, window and intervention are then chosen by the rule (`calibration_rule`). All of it happens on
validation prompts; what the suggestion is worth is for the test split to say, in Evaluate Safety.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from ..activations import Row
from .choice import Rule, front_of, place_p_value
from .outcome import Outcome, Seens, outcome_of, prompt_scores
from .plan import FINALISTS, coarse_grid, coarse_settings, fine_settings, plan_videos
from .space import UNSTEERED, Place, SearchSpace, Setting

ALPHA = 0.05
# (stage, settings, rows) -> all that was seen so far, these settings on these rows among it
Measure = Callable[[str, Sequence[Setting], Sequence[Row]], Seens]


@dataclass(frozen=True)
class PlaceChoice:
    """Which place was taken and why. p_others: best place against all of them; p_usual: against the usual place.

    None: only one place was tried.
    """

    place: Place
    best: Place
    usual: Place
    p_others: float | None = None
    p_usual: float | None = None
    prompts: int = 0

    @property
    def reason(self) -> str:
        """The choice in one sentence."""
        if self.p_others is None or self.p_usual is None:
            return "Only one place was tried."
        name, usual = "+".join(self.best), "+".join(self.usual)
        tested = f"over {self.prompts} prompts, against {usual} p = {self.p_usual:.2g}, against all places p = "
        tested += f"{self.p_others:.2g}"
        if self.place == self.best == self.usual:
            return f"{name} did best and is also what is taken without a calibration ({tested})."
        if self.place == self.best:
            return f"{name} did better than {usual} by more than chance ({tested})."
        return (
            f"{name} did best, but by no more than chance ({tested}), so {usual} is kept. More prompts may tell them "
            "apart."
        )


@dataclass(frozen=True)
class Calibration:
    """What a calibration found. outcomes: every setting in the order of trial, the unsteered one first, each on all
    the prompts it was measured on; finals: those on every prompt, chosen first; videos: how many were needed."""

    outcomes: tuple[Outcome, ...]
    finals: tuple[Outcome, ...]
    choice: PlaceChoice
    rule: Rule
    videos: int

    @property
    def unsteered(self) -> Outcome:
        """Without steering."""
        return self.outcomes[0]

    @property
    def chosen(self) -> Outcome:
        """The suggested setting's."""
        return self.finals[0]

    @property
    def front(self) -> tuple[Outcome, ...]:
        """The finals that no other beats in every respect."""
        return tuple(front_of(self.finals))

    @property
    def within_rule(self) -> bool:
        """Whether the suggestion keeps to what the rule allows, and is not only the one that misses it by the least."""
        return self.rule.shortfall(self.chosen) == 0


def calibrate(space: SearchSpace, rows: Sequence[Row], budget: int, rule: Rule, measure: Measure) -> Calibration:
    """Search a space with at most `budget` videos of these rows, and suggest one setting.

    Raises:
        SafetySteeringError: the budget is too small, or one of the two kinds of prompts is missing.
    """
    plan = plan_videos(rows, space, budget)
    measure("unsteered", [UNSTEERED], plan.final)
    places, strengths = coarse_grid(space, plan.coarse // len(plan.searched))
    tried = coarse_settings(space, places, strengths)
    seen = measure("coarse", tried, plan.searched)
    choice = choose_place(space, places, strengths, plan.searched, seen)

    coarse = rule.ranked([outcome_of(one, plan.searched, seen) for one in tried if one.place == choice.place])
    thinned = len(places) < len(space.places)
    around = fine_settings(space, [one.setting for one in coarse], thinned and choice.place != choice.usual)
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


def choose_place(
    space: SearchSpace, places: Sequence[int], strengths: Sequence[float], rows: Sequence[Row], seen: Seens
) -> PlaceChoice:
    """The place with the best score at its own best strength, if it beats the usual one by more than chance."""
    usual = places.index(space.usual)
    scores = np.stack(
        [
            np.stack([prompt_scores(setting, rows, seen) for setting in coarse_settings(space, [place], strengths)])
            for place in places
        ]
    )
    reached = scores.mean(axis=2).max(axis=1)
    # of equals the usual place: nothing speaks for leaving it
    best = usual if reached[usual] == reached.max() else int(reached.argmax())
    names = [space.places[place] for place in places]
    if len(places) == 1:
        return PlaceChoice(names[0], names[0], names[0])
    p_usual = place_p_value(scores, [usual])
    p_others = place_p_value(scores, range(len(places)))
    chosen = best if p_usual <= ALPHA else usual
    return PlaceChoice(names[chosen], names[best], names[usual], p_others, p_usual, len(rows))
