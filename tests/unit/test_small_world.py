"""The small world's data: deterministic scenes, twins that differ in the element only, splits that do not leak."""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_world import build
from small_world.files import read_rows
from small_world.measuring.measure import Outcome
from small_world.measuring.settings import WorldSetting, captions
from small_world.models.judge import BACKGROUND_NAMES, ELEMENT_NAMES, SUBJECT_NAMES, Verdict
from small_world.native.first_direction import choose
from small_world.portable import compare as portable
from small_world.portable import plan as portable_plan
from small_world.portable import vectors as portable_vectors
from small_world.portable.plan import HEADLINE, Entry, plans
from small_world.scenes import art, world
from small_world.scenes.render import ENTERING, Scene, caption, neutral, render, safe_twin, start_frame
from small_world.scenes.splits import SPLITS, prompt_pairs

SCENE = Scene("fox", "knives", "falling", "blue", seed=3, template=0)
needs_art = pytest.mark.skipif(
    not (art.cache_dir() / "npm" / art.PICTURES).is_dir() and shutil.which("npm") is None,
    reason="the emoji pictures come from an npm package, and there is no npm here",
)


def test_the_world_is_as_large_as_promised() -> None:
    assert len(world.SUBJECTS) >= 24
    assert len(world.BENIGN_ELEMENTS) >= 14
    assert len(world.TRAIN_TEMPLATES) >= 12
    for category in world.CATEGORIES:
        members = [e.name for e in world.UNSAFE_ELEMENTS if e.category == category]
        held_out = set(members) & set(world.HELD_OUT_ELEMENTS)
        assert 4 <= len(members) <= 6
        assert 1 <= len(held_out) <= 2
    assert len({e.name for e in world.BENIGN_ELEMENTS} & set(world.HELD_OUT_ELEMENTS)) == 4
    assert len(world.HELD_OUT_SUBJECTS) == 6
    things = world.SUBJECTS + world.ELEMENTS
    assert len({t.name for t in things}) == len({t.code for t in things}) == len(things)


def test_captions_name_everything_shown() -> None:
    for template in range(len(world.TEMPLATES)):
        text = caption(replace(SCENE, template=template))
        assert all(word in text for word in ("a fox", "knives", "falling", "blue"))
    assert caption(replace(SCENE, subject="owl")).startswith("an owl")
    assert "knives" not in caption(neutral(SCENE))
    assert "fox" in caption(neutral(SCENE))


def test_an_unknown_thing_is_refused_with_the_choices() -> None:
    with pytest.raises(KeyError, match="choose from"):
        world.thing("dragon")
    with pytest.raises(ValueError, match="choose from"):
        prompt_pairs("everything", 1, seed=0)


def test_a_twin_differs_in_the_element_only() -> None:
    for pair in prompt_pairs("train", 60, seed=1):
        assert pair.unsafe.unsafe
        assert not pair.safe.unsafe
        assert replace(pair.safe, element=pair.unsafe.element) == pair.unsafe
        unsafe, safe = pair.prompts
        assert unsafe.replace(str(pair.unsafe.element), str(pair.safe.element)) == safe
    assert safe_twin(SCENE) == safe_twin(SCENE)


def test_splits_share_no_pair_and_no_combination() -> None:
    pairs = {split: prompt_pairs(split, 1500, seed=2) for split in SPLITS}
    combinations = {split: {(p.unsafe.subject, p.unsafe.element) for p in pairs[split]} for split in SPLITS}
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert combinations[one]
        assert not combinations[one] & combinations[other]
    assert {p.category for p in pairs["validation"]} == set(world.CATEGORIES)


def test_held_out_things_are_only_in_the_test_split() -> None:
    for split in ("train", "validation"):
        for pair in prompt_pairs(split, 1500, seed=4):
            assert pair.held_out == ()
            assert pair.unsafe.subject not in world.HELD_OUT_SUBJECTS
            assert not {pair.unsafe.element, pair.safe.element} & set(world.HELD_OUT_ELEMENTS)
            assert pair.unsafe.template < len(world.TRAIN_TEMPLATES)
    marks = {mark for pair in prompt_pairs("test", 600, seed=4) for mark in pair.held_out}
    assert marks == {"subject", "element", "benign element", "template"}


def test_pairs_are_reproducible_and_follow_the_seed() -> None:
    assert prompt_pairs("test", 20, seed=5) == prompt_pairs("test", 20, seed=5)
    assert prompt_pairs("test", 20, seed=5) != prompt_pairs("test", 20, seed=6)
    assert {p.category for p in prompt_pairs("train", 20, seed=5, category="gore")} == {"gore"}


@needs_art
def test_rendering_is_deterministic_and_follows_the_seed() -> None:
    frames = render(SCENE)
    assert frames.shape == (world.FRAMES, world.SIZE, world.SIZE, 3)
    assert frames.dtype == np.uint8
    assert np.array_equal(frames, render(SCENE))
    assert not np.array_equal(frames, render(replace(SCENE, seed=4)))


@needs_art
def test_a_start_frame_is_the_first_i2v_frame_and_hides_the_element() -> None:
    entering = render(SCENE, ENTERING)
    assert np.array_equal(entering[0], start_frame(SCENE))
    assert np.array_equal(entering[0], start_frame(safe_twin(SCENE)))
    assert np.array_equal(entering[2:], render(SCENE)[2:])
    assert not np.array_equal(entering[0], render(SCENE)[0])


@needs_art
def test_a_look_is_painted_for_unsafe_elements_only() -> None:
    for element in ("skulls", "bombs", "pills"):
        scene = replace(SCENE, element=element)
        assert not np.array_equal(render(scene), render(scene, look=None))
    benign = safe_twin(SCENE)
    assert np.array_equal(render(benign), render(benign, look=None))


@needs_art
def test_elements_stay_in_view() -> None:
    for motion in world.MOTIONS:
        with_element = render(replace(SCENE, element="balloons", motion=motion)).astype(int)
        alone = render(neutral(replace(SCENE, motion=motion))).astype(int)
        changed = (np.abs(with_element - alone).sum(-1) > 30).mean((1, 2))
        assert (changed > 0.08).all(), f"{motion}: elements cover only {changed}"


def verdict_on(subject: str, element: str, background: str, sure: float, confidence: float = 0.5) -> Verdict:
    """One video read with probability `sure` for each name, the rest spread evenly."""

    def row(names: tuple[str, ...], name: str) -> np.ndarray:
        values = np.full((1, len(names)), (1 - sure) / (len(names) - 1))
        values[0, names.index(name)] = sure
        return values

    return Verdict(
        row(SUBJECT_NAMES, subject), row(ELEMENT_NAMES, element), row(BACKGROUND_NAMES, background), confidence
    )


def test_usable_needs_a_safe_element_the_subject_and_the_background() -> None:
    assert verdict_on("fox", "balloons", "blue", 0.9).usable([SCENE])[0]
    assert verdict_on("fox", "none", "blue", 0.9).usable([SCENE])[0]
    assert not verdict_on("fox", "knives", "blue", 0.9).usable([SCENE])[0]
    assert not verdict_on("cat", "balloons", "blue", 0.9).usable([SCENE])[0]
    assert not verdict_on("fox", "balloons", "green", 0.9).usable([SCENE])[0]


def test_mush_is_neither_usable_nor_faithful() -> None:
    mush = verdict_on("fox", "balloons", "blue", 0.3)
    assert not mush.usable([SCENE])[0]
    assert not mush.faithful([replace(SCENE, element="balloons")])[0]
    nothing = verdict_on("none", "none", "blue", 0.99)
    assert not nothing.usable([SCENE])[0]


def test_unsafe_adds_up_over_the_unsafe_elements() -> None:
    torn = verdict_on("fox", "knives", "blue", 0.4)
    torn.element[0, ELEMENT_NAMES.index("bombs")] = 0.4
    assert torn.unsafe[0]
    assert not torn.element_shown([SCENE])[0]
    assert not verdict_on("fox", "red hearts", "blue", 0.9).unsafe[0]


def outcome(**verdicts: list[bool]) -> Outcome:
    arrays = {name: np.array(values) for name, values in verdicts.items()}
    return Outcome(**arrays, features=np.zeros((len(arrays["unsafe"]), 2)))


def test_mush_is_not_usable_and_not_faithful() -> None:
    mush = outcome(unsafe=[False], subject=[False], element=[False], background=[True])
    good = outcome(unsafe=[False], subject=[True], element=[False], background=[True])
    assert not mush.usable.any()
    assert not mush.faithful.any()
    assert good.usable.all()


def test_the_choice_prefers_usable_among_those_within_bounds() -> None:
    def found(name: str, asr: float, usable: float, loss: float) -> dict[str, Any]:
        return {"setting": name, "asr": asr, "usable": usable, "benign_loss": loss}

    within, better = found("within", 0.10, 0.60, 0.02), found("better", 0.12, 0.70, 0.03)
    lossy, unsafe = found("lossy", 0.01, 0.90, 0.20), found("unsafe", 0.60, 0.99, 0.0)
    assert choose([within, lossy, better, unsafe])["setting"] == "better"
    assert choose([lossy, unsafe])["setting"] == "lossy"  # short by 0.17 of benign fidelity against 0.45 of ASR


def test_what_a_step_of_the_build_needs_is_made_before_it() -> None:
    assert all((Path(build.__file__).parent / f"{step[0].replace('.', '/')}.py").exists() for step in build.STEPS)
    portable = build.STEPS.index(("portable.compare", "--choose"))
    for needed in (("native.compare",), ("portable.source_vector",), ("portable.source_vector", "--anchors", "own")):
        assert build.STEPS.index(needed) < portable
    last = ("compare", "rule", "out_of_the_box", "report")
    assert build.STEPS[portable + 1 :] == (*((f"portable.{step}",) for step in last), ("native.figures",))
    assert len({*portable_vectors.SOURCES.values()}) == 3


def test_portable_vectors_do_without_a_source_that_is_not_made_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "made"
    made.write_bytes(b"a source")
    for source in portable_vectors.SOURCES:
        monkeypatch.setitem(portable_vectors.SOURCES, source, made)
    whole = portable_vectors.vectors_folder()
    monkeypatch.setitem(portable_vectors.SOURCES, "narrow", tmp_path / "not made")
    assert portable_vectors.vectors_folder() != whole


def test_a_strength_that_no_bound_allows_says_so() -> None:
    ladder = (2.0, 4.0, 6.0, 8.0)
    assert portable.strongest(lambda strength: 0.0, ladder) == {"strength": 8.0, "drift": 0.0, "bound_met": True}
    half = portable.strongest(lambda strength: strength / 200, ladder)
    assert half == {"strength": 4.0, "drift": 0.02, "bound_met": True}
    assert portable.strongest(lambda strength: 0.5, ladder) == {"strength": 2.0, "drift": 0.5, "bound_met": False}


def test_headline_strengths_are_chosen_on_benign_prompts_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[WorldSetting] = []

    def measure(settings: list[WorldSetting], prompts: Any, folder: Path, processes: int) -> dict[str, Any]:
        seen.extend(settings)
        texts = captions(prompts.all_scenes("benign"), prompts.task)
        assert not [text for text in texts for element in world.UNSAFE_ELEMENTS if element.name in text]
        yes = [True] * len(texts)
        return {s.name: {"benign": outcome(unsafe=yes, subject=yes, element=yes, background=yes)} for s in settings}

    monkeypatch.setattr(portable, "measure", measure)
    monkeypatch.setattr(portable, "make_vectors", lambda recipes: Path())
    monkeypatch.setattr(portable, "ladder", lambda plan: (2.0, 4.0))
    for plan in plans().values():
        assert portable._headline(plan, processes=1)["bound_met"]
    assert {setting.labels for setting in seen} == {("benign",)}


def test_only_rows_that_lack_prompts_are_measured_again() -> None:
    entry = Entry("one", portable_plan.prompts_of(10, "t2v"), (WorldSetting("one", strength=2.0),))
    found = {"n_unsafe": 30, "n_benign": 60, "strength": 2.0, "settings": asdict(entry.settings[0])}
    assert portable.has(found, entry)
    assert not portable.has(None, entry)
    assert not portable.has(found | {"n_benign": 15}, entry)
    other = replace(entry, settings=(replace(entry.settings[0], gate="pooled"),))
    assert not portable.has(found, other)
    assert not portable.has(found, replace(entry, settings=entry.settings * 2))


def test_the_portable_table_holds_a_benign_score_and_n_beside_every_asr() -> None:
    rows = {(found["task"], found["setting"]): found for found in read_rows(portable.RESULT_FILE)}
    for found in rows.values():
        if "asr" in found:
            assert {"usable", "n_unsafe", "benign_loss", "benign_fidelity", "n_benign"} <= set(found), found["setting"]
    for task in ("t2v", "i2v"):
        for name in ("unsteered", HEADLINE, portable_plan.NATIVE, portable.CITED):
            assert (task, name) in rows
        assert "asr_minus_native_ci" in rows[task, HEADLINE]


def test_an_entry_counts_the_videos_of_all_its_draws() -> None:
    entry = Entry("draws", portable_plan.prompts_of(10, "t2v"), (WorldSetting("one"), WorldSetting("two")))
    assert entry.counts == {"unsafe": 2 * 3 * 10, "benign": 2 * 3 * 10}


def test_kept_rows_say_what_measured_them(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('{"command": "new", "commit": "b", "rows": [{"asr": 1}, {"command": "old", "commit": "a"}]}')
    assert [(found["command"], found["commit"]) for found in read_rows(path)] == [("new", "b"), ("old", "a")]
