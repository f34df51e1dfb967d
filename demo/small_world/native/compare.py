"""Native steering against other methods: choose a setting of each on validation, then measure the test split.

    python tools/start.py small_world.native.compare --choose   all settings on validation -> reins_validation.json
    python tools/start.py small_world.native.compare            the chosen ones and controls on test -> reins.json

Needs `small_world.native.capture_states`. Each row is written when it is measured; a stopped run is resumed, and
`--missing` keeps the rows of the results file and measures the missing ones. `first_direction.choose` is the rule of
choice, fixed before the test split was read.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from safety_steering_pack.safety_steering.evaluation.rates import rate

from ..files import save_result
from ..measuring.measure import PLAIN, Outcome, measure, reference_features
from ..measuring.rows import row
from ..measuring.settings import LABELS, Prompts, WorldSetting
from ..runtime import RESULTS
from ..scenes.splits import PromptPair
from ..scenes.world import CATEGORIES
from .first_direction import choose, setting_of
from .held_out import held_out_scenes, measure_held_out
from .methods import AS_ONE, METHODS, backwards, matched
from .vectors import RANDOM, SHUFFLED, TEXT, all_vectors, category_vectors, fold_vectors

PER_FOLD, SEED = 6, 5
FINALISTS, FINAL_PER_FOLD, FINAL_SEED = 5, 20, 6
SEEDS, MANY, IMAGES, OTHERS = (1, 2, 3), 200, 50, 100  # prompts a seed, see `plan`
VALIDATION_FILE, RESULT_FILE = RESULTS / "reins_validation.json", RESULTS / "reins.json"
TASKS = ("t2v", "i2v")
HELD_OUT = "validation, elements left out of the fit"
BEST = "best native"
LEFT_OUT = f"{BEST}, fitted without "


def choose_all(processes: int) -> None:
    """Every method's settings on held-out elements. Gated settings of the text states come first, and the best of them
    are measured again on more pairs: settings without gate lose too many benign prompts to be the best."""
    rows: list[dict[str, Any]] = []
    gated = [
        name for name, settings in METHODS.items() if all(s.gate != "off" and s.hook_points == TEXT for s in settings)
    ]
    for method in gated:
        rows += _choose_one(method, processes)
    rows += _finalists([r for r in rows if r["chosen"]], processes)
    _save(rows)
    choose_missing(processes)


def choose_missing(processes: int) -> None:
    """The methods of which the results file has no rows yet."""
    rows = _rows(VALIDATION_FILE)
    measured = {r["method"] for r in rows}
    for method in METHODS:
        if method not in measured:
            rows += _choose_one(method, processes)
            _save(rows)


def _rows(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"]
    return rows


def _choose_one(method: str, processes: int) -> list[dict[str, Any]]:
    found = held_out_rows(METHODS[method], PER_FOLD, SEED, processes)
    choose(found)["chosen"] = True
    _print([r for r in found if r["chosen"]], method)
    return [r | {"method": method, "round": 1} for r in found]


def _finalists(rows: Sequence[dict[str, Any]], processes: int) -> list[dict[str, Any]]:
    """The best methods once more, on other and more pairs; the best of these is marked."""
    left, best = list(rows), []
    while left and len(best) < FINALISTS:
        best.append(choose(left))
        left.remove(best[-1])
    found = held_out_rows([setting_of(r) for r in best], FINAL_PER_FOLD, FINAL_SEED, processes)
    choose(found)["chosen"] = True
    _print(found, "finalist")
    return [r | {"method": of["method"], "round": 2} for r, of in zip(found, best, strict=True)]


def _save(rows: Sequence[Mapping[str, Any]]) -> None:
    save_result(VALIDATION_FILE, command(), [SEED, FINAL_SEED], rows)


def held_out_rows(settings: Sequence[WorldSetting], per_fold: int, seed: int, processes: int) -> list[dict[str, Any]]:
    names = {setting.vector for setting in settings}
    outcomes = measure_held_out(
        [PLAIN, *settings], lambda left_out: fold_vectors(left_out, names), per_fold, seed, processes
    )
    reference = reference_features(held_out_scenes(per_fold, seed))
    return [row(setting, outcomes[setting.name], outcomes[PLAIN.name], reference, HELD_OUT) for setting in settings]


def chosen() -> tuple[WorldSetting, dict[str, WorldSetting]]:
    """The best native setting, and every method's chosen one by the method's name."""
    rows = [r for r in _rows(VALIDATION_FILE) if r["chosen"]]
    (best,) = (setting_of(r) for r in rows if r["round"] == 2)
    found = {r["method"]: replace(setting_of(r), name=r["method"]) for r in rows if r["round"] == 1}
    return replace(best, name=BEST), {method: found[method] for method in METHODS if method in found}


def plan(others: int) -> Iterator[tuple[WorldSetting, Mapping[str, Prompts], Path]]:
    """The rows of the test split: setting, prompts by label, folder of vectors; the most important first.

    The rows of the bars have `MANY` prompts a seed (benign ones in I2V `IMAGES`), the others `others`.
    """
    best, methods = chosen()
    vectors = all_vectors({best.vector, RANDOM, SHUFFLED, *(setting.vector for setting in methods.values())})
    controls = [*matched(best, vectors), *backwards()]
    some = Prompts("test", others, SEEDS)
    for setting in (PLAIN, best):
        yield setting, dict.fromkeys(LABELS, replace(some, per_seed=MANY)), vectors
    of_images = {"unsafe": Prompts("test", MANY, SEEDS, "i2v"), "benign": Prompts("test", IMAGES, SEEDS, "i2v")}
    for setting in (PLAIN, best):
        yield setting, of_images, vectors
    for setting in controls:
        yield setting, dict.fromkeys(LABELS, some), vectors
    for category in CATEGORIES:
        alone = replace(best, name=f"{LEFT_OUT}{category}", mix=AS_ONE, labels=("unsafe",))
        prompts = replace(some, categories=(category,))
        yield alone, {"unsafe": prompts}, category_vectors(category, (best.vector,))
    for setting in (PLAIN, best, *(methods[name] for name in ("blocks",) if name in methods)):
        image = {"unsafe": replace(some, task="i2v_unsafe_image")}
        yield replace(setting, labels=("unsafe",)), image, vectors
    for task in TASKS:
        for setting in methods.values():
            yield setting, dict.fromkeys(LABELS, replace(some, task=task)), vectors
    for setting in matched(best, vectors):
        yield setting, dict.fromkeys(LABELS, replace(some, task="i2v")), vectors


def read_test(processes: int, others: int, count: int | None, missing: bool) -> None:
    """Read the test split, row by row.

    count: only so many rows of the plan, if given. missing: keep the rows of the results file and add what it lacks.
    """
    rows = _rows(RESULT_FILE) if missing else []
    measured = {(r["task"], r["setting"]) for r in rows}
    for setting, prompts, vectors in islice(plan(others), count):
        if (prompts[setting.labels[0]].task, setting.name) in measured:
            continue
        steered, plain = (
            {label: _outcome(one, label, prompts[label], vectors, processes) for label in setting.labels}
            for one in (setting, PLAIN)
        )
        task = prompts[setting.labels[0]].task
        reference = _reference(prompts["benign"]) if "benign" in setting.labels else np.empty(0)
        found = row(setting, steered, plain, reference, "test", task)
        found["chosen"] = setting.name == BEST
        if "unsafe" in steered and task != "i2v_unsafe_image":
            found["by_held_out"] = by_held_out(steered["unsafe"], prompts["unsafe"].all_pairs())
        rows.append(found)
        save_result(RESULT_FILE, command(), list(SEEDS), rows)
        _print([found], f"{task} {setting.name}")


def _outcome(setting: WorldSetting, label: str, prompts: Prompts, vectors: Path, processes: int) -> Outcome:
    one = replace(setting, labels=(label,))
    return measure([one], prompts, vectors, processes=processes)[one.name][label]


def by_held_out(unsafe: Outcome, pairs: Sequence[PromptPair]) -> dict[str, Any]:
    """ASR and usable by which part of the prompt was held out of the fits: element, subject, template or nothing."""
    kinds = {kind: [kind in pair.held_out for pair in pairs] for kind in ("element", "subject", "template")}
    kinds["nothing"] = [not any(held) for held in zip(*kinds.values(), strict=True)]
    return {
        kind: {
            **rate("asr", unsafe.unsafe[np.array(mask)]),
            **rate("usable", unsafe.usable[np.array(mask)]),
            "n": sum(mask),
        }
        for kind, mask in kinds.items()
        if any(mask)
    }


@lru_cache
def _reference(prompts: Prompts) -> np.ndarray:
    return reference_features(prompts.all_scenes("benign"), i2v=prompts.task != "t2v")


def _print(rows: Sequence[Mapping[str, Any]], title: str) -> None:
    for found in rows:
        names = ("asr", "usable", "benign_fidelity", "benign_loss", "benign_unsafe")
        numbers = "  ".join(f"{name} {found[name]:.3f}" for name in names if name in found)
        print(f"{title}: {found['setting']}  {numbers}  {found['strength']:g} x {found['intervention']}", flush=True)


def command() -> str:
    return " ".join(["python tools/start.py small_world.native.compare", *sys.argv[1:]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--choose", action="store_true", help="choose on validation; without it, read the test split")
    parser.add_argument("--missing", action="store_true", help="keep the measured rows, measure missing ones")
    parser.add_argument("--processes", type=int, default=0, help="how many work at once; 0 for one a core")
    parser.add_argument("--others", type=int, default=OTHERS, help="prompts a seed, of rows without a bar")
    parser.add_argument("--rows", type=int, help="read only so many rows of the test table, the bars' first")
    arguments = parser.parse_args()
    if arguments.choose:
        (choose_missing if arguments.missing else choose_all)(arguments.processes)
    else:
        read_test(arguments.processes, arguments.others, arguments.rows, arguments.missing)


if __name__ == "__main__":
    main()
