"""How native steering is compared: equal budgets, nested prompts, folds, tables that are filled from results."""

from __future__ import annotations

import json

import numpy as np
import pytest
from small_world.measuring.measure import Outcome
from small_world.measuring.settings import Prompts, captions
from small_world.native import acting
from small_world.native.compare import VALIDATION_FILE, best_row, by_held_out
from small_world.native.first_direction import choose, setting_of
from small_world.native.methods import BUDGET, KNOWN, METHODS, READ
from small_world.native.report import fill, percent, table
from small_world.runtime import WEIGHTS
from small_world.scenes.world import HELD_OUT_ELEMENTS


def test_every_method_has_the_same_validation_budget() -> None:
    assert {len(settings) for settings in METHODS.values()} == {BUDGET}
    for settings in METHODS.values():
        assert len({setting.name for setting in settings}) == BUDGET


def test_baselines_are_not_told_what_the_fits_may_not_see() -> None:
    assert not {element.name for element in KNOWN} & set(HELD_OUT_ELEMENTS)
    for setting in (setting for settings in METHODS.values() for setting in settings):
        told = f"{setting.negative} {dict(setting.parameters)}"
        assert not any(name in told for name in HELD_OUT_ELEMENTS)


def test_fewer_prompts_are_the_first_of_more() -> None:
    for choice in ({}, {"elements": ("bombs", "pills")}, {"categories": ("drugs",)}):
        few, many = (Prompts("test", n, (1, 2), **choice) for n in (10, 30))
        for seed in (1, 2):
            assert few.pairs(seed) == many.pairs(seed)[:10]
    assert {pair.category for pair in Prompts("test", 10, (1,), categories=("drugs",)).all_pairs()} == {"drugs"}


def test_an_unsafe_image_has_a_prompt_that_does_not_name_it() -> None:
    scenes = Prompts("test", 5, (1,)).all_scenes("unsafe")
    for scene, text, plain in zip(scenes, captions(scenes, "i2v_unsafe_image"), captions(scenes, "t2v"), strict=True):
        assert scene.element not in text
        assert scene.element in plain


def test_results_by_what_is_held_out_add_up() -> None:
    pairs = Prompts("test", 60, (1,)).all_pairs()
    unsafe = np.array(["element" in pair.held_out for pair in pairs])
    yes, features = np.ones(60, dtype=bool), np.zeros((60, 2))
    found = by_held_out(Outcome(unsafe, yes, yes, yes, features), pairs)
    assert found["element"]["asr"] == 1.0
    assert found["nothing"]["asr"] == 0.0
    assert found["nothing"]["n"] + sum(bool({"element", "subject", "template"} & set(p.held_out)) for p in pairs) == 60


def test_tables_go_between_their_marks() -> None:
    text = "before\n<!-- one -->\nold\n<!-- end of one -->\nafter"
    content = table(("a", "b"), [("1", percent({"asr": 0.5, "asr_ci": [0.25, 0.75]}, "asr"))])
    assert fill(text, {"one": content, "two": "x"}) == f"before\n<!-- one -->\n{content}\n<!-- end of one -->\nafter"
    assert "50.0 [25.0, 75.0]" in content
    assert percent({}, "asr") == "-"


@pytest.mark.parametrize("name", sorted(METHODS))
def test_settings_name_a_direction_only_where_there_is_one(name: str) -> None:
    for setting in METHODS[name]:
        assert (setting.direction == "native") == bool(setting.vector)
        assert setting.hook_points or not setting.vector or setting.baseline


def test_the_acting_vector_suggests_what_validation_chose() -> None:
    from safety_steering_pack.safety_steering.vectors.file import load_vector

    rows = [r for r in json.loads(VALIDATION_FILE.read_text())["rows"] if r["round"] == 2 and r["method"] != READ]
    assert choose(rows) == best_row()
    assert min(min(found["n_unsafe"], found["n_benign"]) for found in rows) >= 200
    setting = setting_of(best_row())
    vector = load_vector(WEIGHTS / acting.FILE)
    found = vector.info.suggestion
    assert (found.strength, found.false_alarm, found.token_threshold) == (
        setting.strength,
        setting.false_alarm,
        setting.token_threshold,
    )
    assert (found.gate, dict(vector.mix)) == ("prompt", dict(setting.mix))
    assert vector.detectors is not None
    assert vector.info.parameters["tokens"] == "differing"
    assert (WEIGHTS / acting.FILE).stat().st_size < 50_000
