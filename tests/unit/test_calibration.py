"""Calibration: the plan keeps to its budget, the rule does what it says, and a block is left only for a reason."""

from __future__ import annotations

import json
import re
import zlib
from itertools import product

import numpy as np
import pytest
from safety_steering_pack.bridge.steering.settings import recommended_settings
from safety_steering_pack.safety_steering.activations import SAFE, UNSAFE, Row
from safety_steering_pack.safety_steering.calibration.calibrate import calibrate
from safety_steering_pack.safety_steering.calibration.choice import Rule, front_of, hook_points_p_value, pareto_front
from safety_steering_pack.safety_steering.calibration.outcome import COPY_SIZE, Outcome, Seen, outcome_of, small_copy
from safety_steering_pack.safety_steering.calibration.plan import coarse_grid, first_rows, plan_videos
from safety_steering_pack.safety_steering.calibration.report import (
    draw_front,
    draw_heatmap,
    result_rows,
    summary,
    with_suggestion,
)
from safety_steering_pack.safety_steering.calibration.space import (
    UNSTEERED,
    SearchSpace,
    Setting,
    describe_intervention,
    parse_intervention,
    read_space,
)
from safety_steering_pack.safety_steering.errors import SafetySteeringError
from safety_steering_pack.safety_steering.hook_point import HookPoint
from safety_steering_pack.safety_steering.judges.verdict import Verdict
from safety_steering_pack.safety_steering.steering.interventions import Intervention
from safety_steering_pack.safety_steering.vectors.file import load_vector, save_vector
from safety_steering_pack.safety_steering.vectors.suggestion import describe_choice, recommended
from tiny.vectors import random_vector

BLOCKS = tuple(HookPoint(f"block.blocks.{i}.image") for i in range(8))
POINTS = (HookPoint("conditioning"), *BLOCKS)
CATEGORIES = ("gore", "violence", "drugs")
ROWS = [
    Row(f"p{i}/{label}", label, CATEGORIES[i % 3], f"p{i}", "validation") for i in range(60) for label in (UNSAFE, SAFE)
]


def space(names=POINTS, strengths=(0.5, 1.0, 2.0, 4.0), **more):
    return SearchSpace(tuple((name,) for name in names), strengths, **more)


def chance(*parts) -> float:
    """A number from 0 to 1 that only depends on its arguments."""
    return zlib.crc32("/".join(map(str, parts)).encode()) / 2**32


class World:
    """A model and judge: `good` hook points turn unsafe prompts safe the more, the stronger; too strong spoils all."""

    def __init__(self, good=(), spoils=3.0, tells=True):
        self.good, self.spoils, self.tells = good, spoils, tells
        self.seen, self.made, self.stages = {}, 0, []

    def measure(self, stage, settings, rows):
        self.stages.append(stage)
        for setting, row in product(settings, rows):
            if (setting.name, row.id) not in self.seen:
                self.made += 1
                self.seen[setting.name, row.id] = self.judge(setting, row)
        return self.seen

    def judge(self, setting, row):
        works = bool(set(setting.hook_points) & set(self.good))
        spoilt = setting.strength > self.spoils
        unsafe = row.label == UNSAFE and not spoilt and not (works and chance(row.id) < setting.strength / 2)
        kept = not spoilt
        moved = 5 * setting.strength * (1 if works else 4)
        copy = np.full((2, COPY_SIZE, COPY_SIZE), 100 * chance(row.pair) + moved).astype(np.uint8)
        verdict = Verdict({"unsafe": float(unsafe)}, unsafe, kept, kept) if self.tells else Verdict({}, unsafe)
        return Seen(verdict, bool(setting.strength), copy if row.label == SAFE else None)


def test_the_best_block_is_found_and_its_best_strength_suggested():
    world = World(good=[BLOCKS[5]])
    found = calibrate(space(usual=4), ROWS, 800, Rule(), world.measure)
    chosen = found.chosen.setting
    assert chosen.hook_points == (BLOCKS[5],)
    assert 2.0 <= chosen.strength <= world.spoils
    assert found.within_rule
    assert found.choice.p_usual <= 0.05
    assert found.unsteered.asr == 1.0
    assert world.stages == ["unsteered", "coarse", "fine", "finals"]
    assert any(one.setting.strength not in (0.0, 0.5, 1.0, 2.0, 4.0) for one in found.outcomes)  # it went finer


@pytest.mark.parametrize("budget", [60, 150, 400, 2000, 10_000])
@pytest.mark.parametrize("pairs", [3, 20, 60])
def test_a_budget_is_kept_and_counted(budget, pairs):
    world = World(good=POINTS)
    found = calibrate(
        space(windows=((0.0, 0.5), (0.0, 1.0)), interventions=(Intervention("add"), Intervention("clamp"))),
        ROWS[: 2 * pairs],
        budget,
        Rule(),
        world.measure,
    )
    assert world.made == found.videos <= budget


def test_other_windows_and_interventions_are_tried_around_the_best():
    windows, hows = ((0.0, 0.5), (0.0, 1.0)), (Intervention("add"), Intervention("clamp", "none", "pooled", -2.0))
    found = calibrate(
        space(strengths=(1.0, 2.0), windows=windows, interventions=hows), ROWS, 900, Rule(), World(good=POINTS).measure
    )
    assert {(one.setting.window, one.setting.intervention) for one in found.outcomes[1:]} >= {
        (windows[0], hows[0]),
        (windows[0], hows[1]),
        (windows[1], hows[0]),
    }


def test_places_that_are_steered_together_get_a_strength_each(tmp_path):
    """Here the prompt's states spoil the picture at more than half of the strength that the block needs."""
    both = (POINTS[0], BLOCKS[2])

    class TwoPlaces(World):
        def judge(self, setting, row):
            spoilt = setting.strengths.get(both[0], setting.strength) > 2.0
            strong = setting.strengths.get(both[1], setting.strength) >= 4.0
            safe = strong or chance(row.id) < 0.5
            unsafe = row.label == UNSAFE and not spoilt and not (setting.strength and safe)
            copy = np.zeros((2, COPY_SIZE, COPY_SIZE), np.uint8) if row.label == SAFE else None
            return Seen(Verdict({}, unsafe, not spoilt, not spoilt), bool(setting.strength), copy)

    found = calibrate(SearchSpace((both,), (2.0, 4.0)), ROWS, 1500, Rule(asr=0), TwoPlaces().measure)
    chosen = found.chosen.setting
    strengths = {point: chosen.strengths.get(point, chosen.strength) for point in both}
    assert strengths == {both[0]: 2.0, both[1]: 4.0}
    assert "of it at" in chosen.name
    assert chosen.shares in summary(found)
    vector = random_vector(dict.fromkeys(POINTS, ("tiny", 8)), family="wan", block_counts={"blocks": 8})
    suggested = load_vector(save_vector(with_suggestion(vector, found, "wan", "a judge"), tmp_path / "v.safetensors"))
    settings = recommended_settings(suggested)
    assert {point: settings.strength_at(point) for point in both} == strengths
    of_one_kind = SearchSpace(((BLOCKS[2], BLOCKS[3]),), (2.0, 4.0))
    tried = calibrate(of_one_kind, ROWS, 900, Rule(), TwoPlaces().measure).outcomes
    assert not any(one.setting.factors for one in tried)


def test_without_a_difference_the_usual_hook_points_stay():
    found = calibrate(space(usual=4), ROWS, 600, Rule(), World(good=POINTS).measure)
    assert found.chosen.setting.hook_points == (BLOCKS[3],)
    assert found.choice.p_usual > 0.05
    assert {one.setting.hook_points for one in found.finals} == {(BLOCKS[3],)}


def test_a_stopped_calibration_goes_on_to_the_same_table():
    whole = World(good=[BLOCKS[2]])
    rows = result_rows(calibrate(space(), ROWS, 400, Rule(), whole.measure), "t2v", "native")
    resumed = World(good=[BLOCKS[2]])
    resumed.seen = dict(list(whole.seen.items())[: whole.made // 2])
    assert result_rows(calibrate(space(), ROWS, 400, Rule(), resumed.measure), "t2v", "native") == rows
    assert resumed.made == whole.made - whole.made // 2
    json.dumps(rows)


def test_too_small_a_budget_or_one_kind_of_prompt_gets_one_sentence():
    with pytest.raises(SafetySteeringError, match=r"budget of 20 videos is too small.*at least 28"):
        calibrate(space(), ROWS, 20, Rule(), World().measure)
    assert calibrate(space(), ROWS, 28, Rule(), World().measure).videos <= 28
    with pytest.raises(SafetySteeringError, match="not both unsafe and benign"):
        calibrate(space(), [row for row in ROWS if row.label == UNSAFE], 400, Rule(), World().measure)


def test_fewer_rows_are_the_first_of_more_and_hold_whole_pairs_of_all_categories():
    more, fewer = first_rows(ROWS, 12), first_rows(ROWS, 6)
    assert set(fewer) < set(more)
    assert len({row.pair for row in fewer}) == 6
    assert {row.category for row in fewer} == set(CATEGORIES)
    assert first_rows(list(reversed(ROWS)), 6) == fewer


def test_the_plan_shares_the_budget_and_the_grid_keeps_the_usual_hook_points():
    small, large = (plan_videos(ROWS, space(), budget) for budget in (200, 4000))
    assert len(small.searched) < len(large.searched) <= len(large.final) == len(ROWS)
    assert set(small.searched) <= set(small.final)
    for settings in range(1, 40):
        sets, strengths = coarse_grid(space(usual=0), settings)
        assert 0 in sets
        assert len(sets) * len(strengths) <= max(2, settings)
    assert coarse_grid(space(), 1000) == (tuple(range(9)), (0.5, 1.0, 2.0, 4.0))


def outcome(asr, usable, loss, strength=1.0, change=0.0):
    ci = (0.0, 1.0)
    shares = (asr, ci, usable, ci, 0.9, ci, loss, 0.0, change, 1.0)
    return Outcome(Setting(("conditioning",), strength), 20, 20, *shares)


def test_the_rule_takes_the_most_usable_of_those_that_are_allowed():
    allowed, better, unsafe, spoils = (
        outcome(0.10, 0.6, 0.0),
        outcome(0.15, 0.7, 0.03),
        outcome(0.2, 0.8, 0.0),
        outcome(0.0, 0.9, 0.10),
    )
    rule = Rule()
    assert rule.ranked([allowed, better, unsafe, spoils])[0] is better
    assert rule.shortfall(better) == 0
    assert rule.ranked([unsafe, spoils])[0] is unsafe  # none is allowed: the one that misses by the least
    assert rule.shortfall(unsafe) == pytest.approx(0.05)
    weak, strong = outcome(0.1, 0.6, 0.0, 1.0), outcome(0.1, 0.6, 0.0, 2.0)
    assert rule.ranked([strong, weak])[0] is weak
    with pytest.raises(SafetySteeringError, match="must be a share"):
        Rule(asr=float("nan"))


def test_the_front_holds_what_nothing_beats():
    costs = [(0.5, 0.1), (0.1, 0.5), (0.5, 0.5), (0.1, 0.5), (0.3, 0.3)]
    assert pareto_front(costs) == [0, 1, 3, 4]
    a, b = outcome(0.1, 0.6, 0.0), outcome(0.2, 0.6, 0.0)
    assert front_of([a, b]) == [a]
    assert front_of([a, outcome(0.2, 0.7, 0.0)])[1:]


def test_chance_makes_no_block_stand_out():
    rng = np.random.default_rng(0)
    values = [hook_points_p_value(rng.random((4, 2, 12)).round(), range(4), repeats=200, seed=i) for i in range(60)]
    assert np.mean(np.array(values) <= 0.05) <= 0.15  # 60 draws of a rate of 0.05 stay below this with 99.7 %
    assert np.mean(values) > 0.4


def test_a_better_block_is_recognised_through_prompts_that_differ():
    rng = np.random.default_rng(1)
    hard = np.repeat([0.0, 1.0], 20)
    scores = np.tile(hard, (3, 2, 1))
    scores[1, 1, :20] = rng.random(20) < 0.4  # one block at one strength does something for the hard prompts
    assert hook_points_p_value(scores, [0]) < 0.01
    assert hook_points_p_value(scores, range(3)) < 0.01
    assert hook_points_p_value(scores[[0, 0, 0]], [0]) == 1.0


def test_a_judge_that_cannot_tell_leaves_the_change_to_speak():
    found = calibrate(space(usual=3), ROWS, 800, Rule(change=0.9), World(good=[BLOCKS[5]], tells=False).measure)
    assert found.chosen.usable is None
    assert found.chosen.loss is None
    assert found.chosen.setting.hook_points == (BLOCKS[5],)
    assert 0 < found.chosen.change < 0.9
    rows = result_rows(found, "t2v", "native")
    assert rows[0]["benign_fidelity"] is None
    told = summary(found).splitlines()
    assert re.fullmatch(r"unsteered: ASR \d+%, benign change 0\.00, of \d+\+\d+", told[0])
    assert any(re.match(r"\S+ x .* \(suggested\): ASR \d+%, benign change", line) for line in told)


def test_change_is_a_share_of_what_tells_two_prompts_apart():
    rows = [Row("u", UNSAFE, "gore"), Row("a", SAFE, "gore"), Row("b", SAFE, "gore")]
    steered = Setting(("conditioning",), 1.0)
    values = {UNSTEERED.name: (10, 50), steered.name: (20, 60)}
    seen = {}
    for name, copies in values.items():
        seen[name, "u"] = Seen(Verdict({}, False))
        for row, value in zip(rows[1:], copies, strict=True):
            seen[name, row.id] = Seen(Verdict({}, False), copy=np.full((1, 16, 16), value, np.uint8))
    assert outcome_of(steered, rows, seen).change == pytest.approx(10 / 40)
    assert outcome_of(UNSTEERED, rows, seen).change == 0


def test_a_small_copy_is_the_mean_of_what_it_covers():
    video = np.zeros((3, 32, 48, 3), np.uint8)
    video[:, :, 24:] = 200
    copy = small_copy(video)
    assert copy.shape == (3, 16, 16)
    assert (copy[:, :, :8] == 0).all()
    assert (copy[:, :, 8:] == 200).all()
    assert small_copy(np.full((1, 5, 7, 3), 9, np.uint8)).tolist() == [[[9] * 16] * 16]


def test_a_space_is_read_as_people_write_it():
    read = read_space(
        POINTS,
        {"blocks": 8},
        hook_points="conditioning, 0.5, block.blocks.1.image+block.blocks.2.image",
        strengths="2, 0.5, 2",
        windows="0-0.5, 0.2-1",
        interventions="clamp none pooled -2.5, add",
    )
    assert read.hook_points == (("conditioning",), (BLOCKS[4],), BLOCKS[1:3])
    assert read.usual == 0
    assert read.strengths == (0.5, 2.0)
    assert read.windows == ((0.0, 0.5), (0.2, 1.0))
    assert read.interventions == (Intervention("clamp", "none", "pooled", -2.5), Intervention())
    texts = {"strengths": "1", "windows": "0-1", "interventions": "add"}
    assert read_space(POINTS, {"blocks": 8}, hook_points="all blocks", **texts).usual == 4
    assert len(read_space(POINTS, {"blocks": 8}, hook_points="all", **texts).hook_points) == 9


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ({"hook_points": "nowhere"}, "no hook point 'nowhere'"),
        ({"strengths": "1, strong"}, "strengths '1, strong' cannot be read"),
        ({"strengths": "0, 1"}, "each must be more than 0"),
        ({"strengths": "nan"}, "each must be more than 0"),
        ({"strengths": " "}, "at least one hook point, one strength"),
        ({"windows": "0.5-0.2"}, "windows '0.5-0.2' cannot be read"),
        ({"windows": "half"}, "windows 'half' cannot be read"),
        ({"interventions": "push"}, "'push' is not an intervention"),
        ({"interventions": "token"}, "'token' is not an intervention"),
        ({"interventions": "add add"}, "'add add' is not an intervention"),
    ],
)
def test_bad_texts_get_one_sentence(texts, words):
    plain = {"hook_points": "all", "strengths": "1", "windows": "0-1", "interventions": "add"}
    with pytest.raises(SafetySteeringError, match=words) as error:
        read_space(POINTS, {"blocks": 8}, **{**plain, **texts})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "how", [Intervention(), Intervention("clamp", "none", "token", -2.0), Intervention("ablate", "channel", "pooled")]
)
def test_an_intervention_is_written_as_it_is_read(how):
    assert parse_intervention(describe_intervention(how)) == how


def test_the_suggestion_is_in_the_vector_and_its_file(tmp_path):
    vector = random_vector(dict.fromkeys(POINTS, ("tiny", 8)), family="wan", block_counts={"blocks": 8})
    found = calibrate(space(usual=4), ROWS, 400, Rule(), World(good=[BLOCKS[5]]).measure)
    suggested = with_suggestion(vector, found, "tiny wan", "a judge")
    again = load_vector(save_vector(suggested, tmp_path / "v.safetensors"))
    setting = found.chosen.setting
    assert again.info.suggestion.strength == setting.strength
    assert again.info.suggestion.hook_points == setting.hook_points
    assert again.info.suggestion.intervention == setting.intervention.kind
    assert dict(again.info.suggestion.mix) == {"violence": 1.0}
    assert again.info.validated_on == ("tiny wan",)
    found_settings = recommended_settings(again)
    assert found_settings.intervention == setting.intervention
    assert (found_settings.strength, found_settings.window) == (setting.strength, setting.window)
    count = found.chosen.unsafe + found.chosen.benign
    assert describe_choice(recommended(again)).endswith(f": calibrated on tiny wan with a judge on {count} prompts")
    step = again.info.provenance[-1]
    assert step["judge"] == "a judge"
    assert step["vector"] == vector.sha256
    assert step["setting"]["window"] == list(setting.window)
    assert step["measured"]["asr"] == found.chosen.asr
    assert with_suggestion(suggested, found, "tiny wan", "a judge").info.validated_on == ("tiny wan",)


@pytest.mark.parametrize("tells", [True, False])
def test_the_pictures_show_every_rate(tells):
    found = calibrate(space(), ROWS, 400, Rule(), World(good=[BLOCKS[2]], tells=tells).measure)
    for draw in (draw_heatmap, draw_front):
        picture = draw(found)
        assert picture.dtype == np.uint8
        assert picture.ndim == 3
        assert picture.shape[1] > 600
        assert picture.std() > 10
    other = calibrate(space(), ROWS, 400, Rule(), World(good=[BLOCKS[6]], tells=tells).measure)
    assert not np.array_equal(draw_heatmap(found), draw_heatmap(other))


def test_the_table_has_the_shape_of_a_safety_table():
    found = calibrate(space(), ROWS, 400, Rule(), World(good=["conditioning"]).measure)
    rows = result_rows(found, "i2v", "transferred")
    assert [row["chosen"] for row in rows].count(True) == 1
    assert rows[0]["direction"] == "none"
    chosen = next(row for row in rows if row["chosen"])
    assert chosen["on_front"]
    assert chosen["direction"] == "transferred"
    assert chosen["asr_ci"][0] <= chosen["asr"] <= chosen["asr_ci"][1]
    assert chosen["n_unsafe"] == max(row["n_unsafe"] for row in rows)
    assert {row["split"] for row in rows} == {"validation"}
    assert chosen["setting"].endswith("at conditioning, window 0-0.5")
    assert "Suggested for Apply: strength" in summary(found)
