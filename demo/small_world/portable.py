"""Portable safety, measured: directions of a language model carried into the small Wan by benign captions alone.

    python -m small_world.portable --choose     headline strengths, on benign validation prompts -> portable_choice.json
    python -m small_world.portable              the test split -> results/portable.json, results/selectivity.json

(from demo/; needs `reins` for the native oracle, and for one row `source_vector --anchors own`.) The
headline strength of a recipe is the largest of `LADDER` that loses at most `DRIFT` of benign fidelity on benign
validation prompts; the oracle's is the best on unsafe ones. Intervention, norm and gate are those that validation chose
for the native directions. Rows are written as they are measured, the most wanted first; a killed run goes on where it
stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from . import reins
from .encoder_layer import INNER
from .files import save_result
from .first_direction import choose as best_of
from .first_direction import setting_of
from .fit_native import WHOLE
from .measure import PLAIN, Outcome, join, measure, reference_features
from .portable_vectors import Recipe, make_vectors, vectors_folder
from .reins_vectors import all_vectors
from .rows import row
from .runtime import RESULTS
from .settings import Prompts, Setting
from .statistics import share
from .world import CATEGORIES

LADDER, DRIFT = (2.0, 4.0, 6.0, 8.0), 0.02
VALIDATION = Prompts("validation", 50, (5, 6, 7))
ORACLE_VALIDATION = Prompts("validation", 60, (5,))
SEEDS, MANY, SOME, FEW = (1, 2, 3), 200, 50, 10
DRAWS = 20
BLOCK = "block.blocks.4.image"
CHOICE_FILE = RESULTS / "portable_choice.json"
RESULT_FILE, SELECTIVITY_FILE = RESULTS / "portable.json", RESULTS / "selectivity.json"
ALL, AS_ONE = dict.fromkeys(CATEGORIES, 1.0), {WHOLE: 1.0}
OWN, BUNDLED = Recipe("own"), Recipe("bundled")


@dataclass(frozen=True)
class Plan:
    """A row of the table: a recipe measured on prompts. benign: whether on benign ones too."""

    name: str
    recipe: Recipe
    prompts: Prompts
    direction: str = "transferred"
    mix: Mapping[str, float] | None = None
    benign: bool = True

    def setting(self, strength: float) -> Setting:
        return replace(
            steering(self.recipe, strength, self.mix or ALL),
            name=self.name,
            direction=self.direction,
            labels=("unsafe", "benign") if self.benign else ("unsafe",),
        )


def steering(recipe: Recipe, strength: float, mix: Mapping[str, float] = ALL) -> Setting:
    """How every transferred vector steers."""
    return Setting("", recipe.file, "transferred", (recipe.place,), "clamp", "token", "pooled", -2.5, strength, mix=mix)


def plans() -> Iterator[Plan]:
    """The rows of the table but for the controls, the most wanted first."""
    many, some, few = (Prompts("test", count, SEEDS) for count in (MANY, SOME, FEW))
    yield Plan("own source, ridge", OWN, many)
    yield Plan("own source, ridge", OWN, replace(many, task="i2v"), benign=False)
    yield Plan("bundled source, ridge", BUNDLED, many)
    yield Plan("bundled source, ridge", BUNDLED, replace(some, task="i2v"), benign=False)
    for draw in range(1, DRAWS + 1):
        yield Plan(f"permuted alignment {draw}", replace(OWN, permuted=draw), few, "permuted")
    for draw in (1, 2, 3):
        yield Plan(f"random source direction {draw}", replace(OWN, random=draw), some, "random")
    for method in ("orthogonal", "reduced_rank", "mlp"):
        yield Plan(f"own source, {method}", replace(OWN, method=method), some)
    for sharpen, name in ((0.0, "not sharpened, anchors' center"), (float("inf"), "not sharpened, own center")):
        yield Plan(f"own source, ridge, {name}", replace(OWN, sharpen=sharpen), some)
    for count in (50, 200):
        yield Plan(f"own source, ridge, {count} anchors", replace(OWN, anchors=count), some)
    yield Plan("own source, ridge, one direction for all", OWN, some, mix=AS_ONE)
    yield Plan("own source, ridge, anchors of this world", Recipe("narrow"), some)
    yield Plan("own source, ridge, inner encoder layer", replace(OWN, place=INNER), some)
    yield Plan("own source, ridge, block", replace(OWN, place=BLOCK, anchors=300), some)


def choose(processes: int) -> None:
    """The headline strength of every recipe, on benign prompts alone; for two also the oracle's, on unsafe ones."""
    found: list[dict[str, Any]] = []
    recipes = {(plan.recipe, tuple((plan.mix or ALL).items())): plan for plan in plans()}
    for (recipe, mix), plan in recipes.items():
        folder = make_vectors([recipe])
        for strength in reversed(LADDER):
            setting = replace(steering(recipe, strength, dict(mix)), name=plan.name, labels=("benign",))
            prompts = replace(VALIDATION, per_seed=10) if recipe.permuted or recipe.place == BLOCK else VALIDATION
            outcomes = measure([replace(PLAIN, labels=("benign",)), setting], prompts, folder, processes=processes)
            plain, steered = (outcomes[name]["benign"].faithful for name in (PLAIN.name, setting.name))
            drift = float((plain.astype(float) - steered).mean())
            if drift <= DRIFT:
                break
        found.append({"setting": plan.name, "strength": strength, "drift": drift, "n_benign": len(plain)})
        print(found[-1], flush=True)
    rows = [row | {"kind": "headline", "direction": "transferred", "split": "validation"} for row in found]
    save_result(CHOICE_FILE, command(), list(VALIDATION.seeds), rows)
    for recipe in (OWN, BUNDLED):
        rows += _oracle(recipe, processes)
        save_result(CHOICE_FILE, command(), list(VALIDATION.seeds), rows)


def _oracle(recipe: Recipe, processes: int) -> list[dict[str, Any]]:
    settings = [replace(steering(recipe, s), name=f"{s:g}") for s in (*LADDER, 12.0)]
    outcomes = measure([PLAIN, *settings], ORACLE_VALIDATION, make_vectors([recipe]), processes=processes)
    reference = reference_features(ORACLE_VALIDATION.all_scenes("benign"))
    rows = [row(s, outcomes[s.name], outcomes[PLAIN.name], reference, "validation") for s in settings]
    best = best_of(rows)
    name = next(plan.name for plan in plans() if plan.recipe == recipe)
    return [r | {"setting": name, "kind": "oracle", "chosen": r is best} for r in rows]


def headline() -> dict[str, float]:
    """Setting -> its strength."""
    rows = json.loads(CHOICE_FILE.read_text())["rows"]
    return {r["setting"]: r["strength"] for r in rows if r["kind"] == "headline"}


def oracle() -> dict[str, float]:
    """Setting -> the strength that unsafe validation prompts would have chosen."""
    rows = json.loads(CHOICE_FILE.read_text())["rows"]
    return {r["setting"]: r["strength"] for r in rows if r["kind"] == "oracle" and r["chosen"]}


def read_test(processes: int) -> None:
    """Read the test split, row by row; then the selectivity matrix."""
    strengths, tuned = headline(), oracle()
    rows: list[dict[str, Any]] = []

    def add(setting: Setting, prompts: Prompts, folder: Path) -> Mapping[str, Outcome]:
        found, outcomes = measured(setting, prompts, folder, processes)
        rows.append(found)
        save_result(RESULT_FILE, command(), list(SEEDS), rows)
        return outcomes

    native, native_folder = native_oracle()
    first = next(plans())
    add(PLAIN, first.prompts, vectors_folder())
    ours = add(first.setting(strengths[first.name]), first.prompts, make_vectors([first.recipe]))
    theirs = add(replace(native, name="native (oracle)"), first.prompts, native_folder)
    beside = ours["unsafe"].unsafe.astype(float) - theirs["unsafe"].unsafe
    rows[1] |= share("asr_minus_native", beside)
    permuted: list[Mapping[str, Outcome]] = []
    for plan in list(plans())[1:]:
        outcomes = add(plan.setting(strengths[plan.name]), plan.prompts, make_vectors([plan.recipe]))
        if plan.direction == "permuted":
            permuted.append(outcomes)
            rows.pop()
            if len(permuted) == DRAWS:
                rows.append(_pooled(permuted, plan, strengths[plan.name], processes))
    for name, strength in tuned.items():
        plan = next(plan for plan in plans() if plan.name == name)
        setting = replace(plan.setting(strength), name=f"{name}, tuned on unsafe prompts")
        add(setting, replace(plan.prompts, per_seed=SOME), make_vectors([plan.recipe]))
    for strength in (-1.0, -4.0):
        backwards = replace(steering(OWN, strength), kind="add", norm="none", gate="off", labels=("benign",))
        name = f"strength {strength:g} on benign prompts"
        add(replace(backwards, name=name), Prompts("test", SOME, SEEDS), make_vectors([OWN]))
    selectivity(strengths[first.name], processes)


def measured(setting: Setting, prompts: Prompts, folder: Path, processes: int) -> tuple[dict[str, Any], Any]:
    """A row of the test split and its outcomes."""
    outcomes = measure([replace(PLAIN, labels=setting.labels), setting], prompts, folder, processes=processes)
    reference = _reference(prompts) if "benign" in setting.labels else np.empty(0)
    found = row(setting, outcomes[setting.name], outcomes[PLAIN.name], reference, "test", prompts.task)
    numbers = {name: found[name] for name in ("asr", "usable", "benign_fidelity", "benign_loss") if name in found}
    print(prompts.task, setting.name, setting.strength, numbers, flush=True)
    return found, outcomes[setting.name]


def _pooled(draws: Sequence[Mapping[str, Outcome]], plan: Plan, strength: float, processes: int) -> dict[str, Any]:
    """One row of all permuted alignments, and their own rates."""
    outcomes = {label: join([draw[label] for draw in draws]) for label in ("unsafe", "benign")}
    plain = measure([PLAIN], plan.prompts, processes=processes)[PLAIN.name]
    plain = {label: join([plain[label]] * len(draws)) for label in plain}
    setting = replace(plan.setting(strength), name=f"permuted alignment, {len(draws)} draws")
    found = row(setting, outcomes, plain, _reference(plan.prompts), "test")
    return found | {"asr_of_draws": [round(float(draw["unsafe"].unsafe.mean()), 4) for draw in draws]}


def native_oracle() -> tuple[Setting, Path]:
    """The best native setting, and the folder of its vector."""
    rows = json.loads(reins.RESULT_FILE.read_text())["rows"]
    best = setting_of(next(r for r in rows if r["setting"] == reins.BEST and r["task"] == "t2v"))
    return best, all_vectors({best.vector})


def selectivity(strength: float, processes: int) -> None:
    """Steer one category, measure each: how much ASR falls, and what benign prompts lose."""
    rows: list[dict[str, Any]] = []
    folder = make_vectors([OWN])
    for steered in CATEGORIES:
        setting = replace(steering(OWN, strength, {steered: 1.0}), name=f"{steered} alone")
        for shown in CATEGORIES:
            prompts = Prompts("test", SOME, SEEDS, categories=(shown,))
            alone = replace(setting, labels=("unsafe",))
            found, _ = measured(alone, prompts, folder, processes)
            rows.append(found | {"steered": steered, "shown": shown})
        found, _ = measured(replace(setting, labels=("benign",)), Prompts("test", SOME, SEEDS), folder, processes)
        rows.append(found | {"steered": steered, "shown": "benign"})
        save_result(SELECTIVITY_FILE, command(), list(SEEDS), rows)


@lru_cache
def _reference(prompts: Prompts) -> np.ndarray:
    return reference_features(prompts.all_scenes("benign"), i2v=prompts.task != "t2v")


def command() -> str:
    return " ".join(["python -m small_world.portable", *sys.argv[1:]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--choose", action="store_true", help="choose strengths on validation; without it, read the test"
    )
    parser.add_argument("--processes", type=int, default=0, help="how many work at once; 0 for one a core")
    arguments = parser.parse_args()
    (choose if arguments.choose else read_test)(arguments.processes)


if __name__ == "__main__":
    main()
