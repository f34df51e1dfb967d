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
from ..measuring.measure import PLAIN, Outcome, join, measure, reference_features
from ..measuring.rows import row
from ..measuring.settings import LABELS, Prompts, WorldSetting
from ..runtime import RESULTS
from ..scenes.splits import PromptPair
from ..scenes.world import CATEGORIES
from .first_direction import choose, setting_of
from .held_out import held_out_scenes, measure_held_out
from .methods import AS_ONE, METHODS, READ, SAME_GATE, backwards, matched
from .vectors import RANDOM, SHUFFLED, TEXT, all_vectors, category_vectors, fold_vectors

PER_FOLD, SEED = 15, 5
FINALISTS, FINAL_PER_FOLD, FINAL_SEED = 5, 20, 6
SEEDS, MANY, OTHERS = (1, 2, 3), 200, 100  # prompts a seed, see `plan`
VALIDATION_FILE, RESULT_FILE = RESULTS / "reins_validation.json", RESULTS / "reins.json"
TASKS = ("t2v", "i2v")
HELD_OUT = "validation, elements left out of the fit"
MIXED = "validation, elements left out of the fit for 36 % of the prompts"
KNOWN = Prompts("validation", 142, (FINAL_SEED,))  # beside 4 x FINAL_PER_FOLD with elements left out
BEST = "best native"
LEFT_OUT = f"{BEST}, fitted without "


def choose_all(processes: int, missing: bool) -> None:
    """Every method's settings on held-out elements. The best of those that steer the text states behind a gate are
    measured again, on more pairs and in the test split's proportion of elements that no fit saw: settings without gate
    lose too many benign prompts to be the best. So are the settings of READ, which leaves the text states alone.

    missing: keep what the results file has of methods, and measure the others.
    """
    rows = [r for r in _rows(VALIDATION_FILE) if r["round"] == 1 and r["method"] in METHODS] if missing else []
    measured = {r["method"] for r in rows}
    for method in METHODS:
        if method not in measured:
            rows += _choose_one(method, processes)
            _save(rows)
    gated = [
        name for name, settings in METHODS.items() if all(s.gate != "off" and s.hook_points == TEXT for s in settings)
    ]
    rows += _again(_finalists([r for r in rows if r["chosen"] and r["method"] in gated]), processes)
    _save(rows)
    _save(rows + _again([r for r in rows if r["method"] == READ], processes))


def _rows(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"]
    return rows


def _choose_one(method: str, processes: int) -> list[dict[str, Any]]:
    found = held_out_rows(METHODS[method], PER_FOLD, SEED, processes)
    choose(found)["chosen"] = True
    _print([r for r in found if r["chosen"]], method)
    return [r | {"method": method, "round": 1} for r in found]


def _finalists(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The `FINALISTS` best rows."""
    left, best = list(rows), []
    while left and len(best) < FINALISTS:
        best.append(choose(left))
        left.remove(best[-1])
    return best


def _again(rows: Sequence[dict[str, Any]], processes: int) -> list[dict[str, Any]]:
    """Rows of the first round measured anew, on held-out elements and on known ones; the best of them is marked."""
    settings = [setting_of(r) for r in rows]
    names = {name for setting in settings for name in (setting.vector, setting.gated_by)}
    every = [PLAIN, *settings]
    unseen = measure_held_out(
        every, lambda left_out: fold_vectors(left_out, names), FINAL_PER_FOLD, FINAL_SEED, processes
    )
    seen = measure(every, KNOWN, all_vectors(names), processes=processes)
    both = {s.name: {label: join([unseen[s.name][label], seen[s.name][label]]) for label in LABELS} for s in every}
    reference = reference_features([*held_out_scenes(FINAL_PER_FOLD, FINAL_SEED), *KNOWN.all_scenes("benign")])
    found = [row(s, both[s.name], both[PLAIN.name], reference, MIXED) for s in settings]
    choose(found)["chosen"] = True
    _print(found, "second round")
    return [r | {"method": of["method"], "round": 2} for r, of in zip(found, rows, strict=True)]


def _save(rows: Sequence[Mapping[str, Any]]) -> None:
    save_result(VALIDATION_FILE, command(), [SEED, FINAL_SEED], rows)


def held_out_rows(settings: Sequence[WorldSetting], per_fold: int, seed: int, processes: int) -> list[dict[str, Any]]:
    names = {name for setting in settings for name in (setting.vector, setting.gated_by)}
    outcomes = measure_held_out(
        [PLAIN, *settings], lambda left_out: fold_vectors(left_out, names), per_fold, seed, processes
    )
    reference = reference_features(held_out_scenes(per_fold, seed))
    return [row(setting, outcomes[setting.name], outcomes[PLAIN.name], reference, HELD_OUT) for setting in settings]


def best_row() -> dict[str, Any]:
    """The validation row of the best native setting."""
    (found,) = (r for r in _rows(VALIDATION_FILE) if r["round"] == 2 and r["chosen"] and r["method"] != READ)
    return found


def chosen() -> tuple[WorldSetting, dict[str, WorldSetting]]:
    """The best native setting, and every method's chosen one by the method's name."""
    rows = [r for r in _rows(VALIDATION_FILE) if r["chosen"]]
    found = {
        r["method"]: replace(setting_of(r), name=r["method"]) for r in rows if r["round"] == 1 or r["method"] == READ
    }
    return replace(setting_of(best_row()), name=BEST), {method: found[method] for method in METHODS if method in found}


def plan(others: int) -> Iterator[tuple[WorldSetting, Mapping[str, Prompts], str]]:
    """The rows of the test split, the most important first: setting, prompts by label, and the category that its vector
    is fitted without, or "".

    The rows of the bars have `MANY` prompts a seed, the others `others`.
    """
    best, methods = chosen()
    read = methods.pop(READ)
    vectors = all_vectors({RANDOM, SHUFFLED, best.vector})
    controls = [*matched(best, vectors), *backwards()]
    some = Prompts("test", others, SEEDS)
    for task in TASKS:
        for setting in (PLAIN, best, read):
            yield setting, dict.fromkeys(LABELS, replace(some, per_seed=MANY, task=task)), ""
    for setting in (*(methods[name] for name in methods if name.endswith(SAME_GATE)), *controls):
        yield setting, dict.fromkeys(LABELS, some), ""
    for category in CATEGORIES:
        alone = replace(best, name=f"{LEFT_OUT}{category}", mix=AS_ONE, labels=("unsafe",))
        prompts = replace(some, categories=(category,))
        yield alone, {"unsafe": prompts}, category
    for setting in (PLAIN, best, read, *(methods[name] for name in ("blocks",) if name in methods)):
        image = {"unsafe": replace(some, task="i2v_unsafe_image")}
        yield replace(setting, labels=("unsafe",)), image, ""
    for task in TASKS:
        for name, setting in methods.items():
            if task != "t2v" or not name.endswith(SAME_GATE):
                yield setting, dict.fromkeys(LABELS, replace(some, task=task)), ""
    for setting in matched(best, vectors):
        yield setting, dict.fromkeys(LABELS, replace(some, task="i2v")), ""


def read_test(processes: int, others: int, count: int | None, missing: bool) -> None:
    """Read the test split, row by row.

    count: only so many rows of the plan, if given. missing: keep the rows of the results file that the plan has
    with the same settings, and those that it does not reach.
    """
    kept = {(r["task"], r["setting"]): r for r in (_rows(RESULT_FILE) if missing else [])}
    rows: list[dict[str, Any]] = []
    for setting, prompts, without in islice(plan(others), count):
        task = prompts[setting.labels[0]].task
        known = kept.pop((task, setting.name), None)
        if known is not None and _is_of(known, setting, prompts):
            rows.append(known)
            continue
        names = (setting.vector, setting.gated_by)
        vectors = category_vectors(without, names) if without else all_vectors(names)
        steered, plain = (
            {label: _outcome(one, label, prompts[label], vectors, processes) for label in setting.labels}
            for one in (setting, PLAIN)
        )
        reference = _reference(prompts["benign"]) if "benign" in setting.labels else np.empty(0)
        found = row(setting, steered, plain, reference, "test", task)
        found["chosen"] = setting.name == BEST
        if "unsafe" in steered and task != "i2v_unsafe_image":
            found["by_held_out"] = by_held_out(steered["unsafe"], prompts["unsafe"].all_pairs())
        rows.append(found)
        save_result(RESULT_FILE, command(), list(SEEDS), [*rows, *kept.values()])
        _print([found], f"{task} {setting.name}")


def _is_of(found: Mapping[str, Any], setting: WorldSetting, prompts: Mapping[str, Prompts]) -> bool:
    """Whether a row was measured with a setting, one with a bar on as many prompts."""
    wanted = {label: prompts[label].per_seed for label in setting.labels if prompts[label].per_seed >= MANY}
    same = found["setting"] == setting.name and setting_of(found) == setting
    return same and all(found.get(f"n_{label}", 0) >= count * len(SEEDS) for label, count in wanted.items())


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
        choose_all(arguments.processes, arguments.missing)
    else:
        read_test(arguments.processes, arguments.others, arguments.rows, arguments.missing)


if __name__ == "__main__":
    main()
