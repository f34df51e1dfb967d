"""The rows of the table of portable steering: recipes, their controls, and the prompts of the test split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from safety_steering_pack.safety_steering.alignment.rule import WORDS

from ..files import read_rows
from ..measuring.measure import PLAIN
from ..measuring.settings import LABELS, Prompts, WorldSetting, captions
from ..measuring.steered import movement
from ..models.encoder_layer import INNER
from ..native import compare as native_compare
from ..native.first_direction import setting_of
from ..native.fit_native import WHOLE
from ..native.methods import MOVED_ON
from ..native.vectors import all_vectors
from ..scenes.world import CATEGORIES
from .vectors import Recipe, make_vectors

SEEDS, MANY, SOME, FEW = (1, 2, 3), 200, 50, 10
DRAWS, RANDOM_DRAWS, MATCHED_DRAWS = {"t2v": 20, "i2v": 5}, (1, 2, 3), 5
BLOCK = "block.blocks.4.image"
ALL, AS_ONE = dict.fromkeys(CATEGORIES, 1.0), {WHOLE: 1.0}
OWN, BUNDLED = Recipe("own"), Recipe("bundled")
CAPTIONS = {"words": False, "sharpen": 1.0}  # as vectors were carried before they had words
STRICT = ", false alarm 1 %"
HEADLINE, SECOND, NATIVE = "own source, ridge", "bundled source, ridge", "native (oracle)"


@dataclass(frozen=True)
class Plan:
    """A recipe and its mix; validation chooses the strength. false_alarm: in place of the rule's, if not 0."""

    name: str
    recipe: Recipe
    direction: str = "transferred"
    mix: Mapping[str, float] | None = None
    false_alarm: float = 0.0

    def setting(self, strength: float) -> WorldSetting:
        one = steering(self.recipe, strength, self.mix or (AS_ONE if self.recipe.of_words else ALL))
        alarm = self.false_alarm or one.false_alarm
        return replace(one, name=self.name, direction=self.direction, false_alarm=alarm)


@dataclass(frozen=True)
class Entry:
    """A row of the table: one setting on prompts, or several draws of a control, whose verdicts are pooled.

    recipes: whose vectors are made when the row is measured. folder: of the vectors, if no recipe makes them.
    """

    name: str
    prompts: Mapping[str, Prompts]  # by label
    settings: tuple[WorldSetting, ...]
    recipes: tuple[Recipe, ...] = ()
    folder: Path | None = None

    @property
    def task(self) -> str:
        return next(iter(self.prompts.values())).task

    @property
    def counts(self) -> dict[str, int]:
        """How many videos of each label it is measured on."""
        return {
            label: len(self.settings) * prompts.per_seed * len(prompts.seeds) for label, prompts in self.prompts.items()
        }

    def vectors(self) -> Path:
        return self.folder or make_vectors(self.recipes)


def steering(recipe: Recipe, strength: float, mix: Mapping[str, float] = ALL) -> WorldSetting:
    """How a transferred vector steers: one of words as Transfer recommends, one of captions as was chosen for it."""
    how, gate = ("clamp", "token", "pooled", -2.5), {}
    if recipe.of_words:
        how = ("clamp", "none", "prompt", 0.0)
        gate = {"false_alarm": WORDS.false_alarm, "token_threshold": WORDS.token_threshold}
    return WorldSetting("", recipe.file, "transferred", (recipe.hook_point,), *how, strength, mix=mix, **gate)


def plans() -> dict[str, Plan]:
    """The plans whose strength validation chooses, by name."""
    found = [Plan(HEADLINE, OWN), Plan(SECOND, BUNDLED)]
    found += [Plan(f"{plan.name}{STRICT}", plan.recipe, false_alarm=0.01) for plan in found]
    found += [
        Plan(f"{name}, whole captions", replace(plan, **CAPTIONS))
        for name, plan in (("own source, ridge", OWN), ("bundled source, ridge", BUNDLED))
    ]
    found += [permuted(draw) for draw in range(1, DRAWS["t2v"] + 1)]
    found += [random_source(draw) for draw in RANDOM_DRAWS]
    found += [
        Plan(f"own source, {method}", replace(OWN, method=method)) for method in ("orthogonal", "reduced_rank", "mlp")
    ]
    for sharpen, name in ((0.0, "not sharpened, anchors' center"), (float("inf"), "not sharpened, own center")):
        found.append(Plan(f"own source, ridge, {name}", replace(OWN, sharpen=sharpen)))
    found += [Plan(f"own source, ridge, {count} anchors", replace(OWN, anchors=count)) for count in (50, 200)]
    found += [
        Plan("own source, ridge, a direction for each category", OWN, mix=ALL),
        Plan("own source, ridge, anchors of this world", Recipe("narrow")),
        Plan("own source, ridge, inner encoder layer", replace(OWN, hook_point=INNER)),
        Plan("own source, ridge, block", replace(OWN, hook_point=BLOCK, anchors=300)),
    ]
    return {plan.name: plan for plan in found}


def permuted(draw: int) -> Plan:
    """A control: an alignment fitted on randomly paired anchors."""
    return Plan(f"permuted alignment {draw}", replace(OWN, permuted=draw), "permuted")


def random_source(draw: int) -> Plan:
    """A control: random directions in the source, transferred by the real alignment."""
    return Plan(f"random source direction {draw}", replace(OWN, random=draw), "random")


def entries(strengths: Mapping[str, float], tuned: Mapping[str, float]) -> Iterator[Entry]:
    """The rows of the test split, the most important first.

    strengths: by plan, chosen on benign validation prompts. tuned: the same, chosen on unsafe ones.
    """
    found = plans()
    few, some, many = (partial(prompts_of, count) for count in (FEW, SOME, MANY))

    def of(name: str, prompts: Mapping[str, Prompts]) -> Entry:
        return Entry(name, prompts, (found[name].setting(strengths[name]),), (found[name].recipe,))

    def draws(name: str, made: Sequence[Plan], prompts: Mapping[str, Prompts]) -> Entry:
        settings = tuple(plan.setting(strengths[plan.name]) for plan in made)
        return Entry(f"{name}, {len(made)} draws", prompts, settings, tuple(plan.recipe for plan in made))

    native, native_folder = native_oracle()
    for task in DRAWS:
        prompts = many(task)
        yield Entry(PLAIN.name, prompts, (PLAIN,))
        yield of(HEADLINE, prompts)
        yield Entry(NATIVE, prompts, (native,), folder=native_folder)
        yield of(SECOND, prompts)
        for name in (HEADLINE, SECOND) if task == "t2v" else ():
            yield of(f"{name}{STRICT}", prompts)
        yield draws("permuted alignment", [permuted(draw) for draw in range(1, DRAWS[task] + 1)], few(task))
    for draw in RANDOM_DRAWS:
        yield of(random_source(draw).name, some("t2v"))
    yield draws("random source direction", [random_source(draw) for draw in RANDOM_DRAWS], few("i2v"))
    for name, make in (("random source direction", random_source), ("permuted alignment", permuted)):
        for task in DRAWS:
            yield matched(name, [make(draw) for draw in range(1, MATCHED_DRAWS + 1)], strengths[HEADLINE], few(task))
    for name, plan in found.items():
        if plan.direction == "transferred" and (plan.mix or plan.recipe not in (OWN, BUNDLED)):
            yield of(name, some("t2v"))
    for name, strength in tuned.items():
        setting, recipe = found[name].setting(strength), found[name].recipe
        yield Entry(f"{name}, tuned on unsafe prompts", some("t2v"), (setting,), (recipe,))
    for strength in (-1.0, -4.0):
        backwards = replace(steering(OWN, strength), kind="add", norm="none", gate="off", labels=("benign",))
        prompts = {"benign": some("t2v")["benign"]}
        yield Entry(f"strength {strength:g} on benign prompts", prompts, (backwards,), (OWN,))


def prompts_of(count: int, task: str) -> dict[str, Prompts]:
    """`count` prompts of the test split a seed, unsafe ones and their safe twins."""
    return dict.fromkeys(LABELS, Prompts("test", count, SEEDS, task))


def matched(name: str, made: Sequence[Plan], strength: float, prompts: Mapping[str, Prompts]) -> Entry:
    """Draws of a control without gate, with the movement of the headline.

    Each moves the tokens of every prompt by the same share of their norm as the headline moves those of unsafe
    validation prompts. With a gate, a wrong direction would leave most prompts alone and be too easy a control.
    """
    recipes = (OWN, *(plan.recipe for plan in made))
    vectors, texts = make_vectors(recipes), captions(MOVED_ON.all_scenes("unsafe"), "t2v")
    wanted = movement(steering(OWN, strength), vectors, texts)
    one = [replace(plan.setting(1.0), kind="add", norm="none", gate="off") for plan in made]
    settings = tuple(replace(s, strength=round(wanted / movement(s, vectors, texts), 2)) for s in one)
    return Entry(f"{name}, no gate, same movement, {len(made)} draws", prompts, settings, recipes)


def native_oracle() -> tuple[WorldSetting, Path]:
    """The best native setting, and the folder of its vector."""
    best = setting_of(native_row(native_compare.BEST, "t2v"))
    return best, all_vectors({best.vector})


def native_row(name: str, task: str) -> dict[str, Any]:
    """A row of the comparison of native steering."""
    rows = read_rows(native_compare.RESULT_FILE)
    return next(found for found in rows if found["setting"] == name and found["task"] == task)
