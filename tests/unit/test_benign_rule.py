"""Transfer's suggestion from benign prompts alone: its gate stays shut on benign prompts, whatever is mixed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from portable import World
from safety_steering_pack.safety_steering.alignment.alignment import AnchorStates, Side
from safety_steering_pack.safety_steering.alignment.fit import fit_alignment
from safety_steering_pack.safety_steering.alignment.rule import FACTOR, FALSE_ALARM, MAX_STRENGTH, SHARE, benign_rule
from safety_steering_pack.safety_steering.alignment.sharpen import sharpened
from safety_steering_pack.safety_steering.alignment.transfer import carry_over, transfer
from safety_steering_pack.safety_steering.errors import SafetySteeringError
from safety_steering_pack.safety_steering.steering.interventions import Intervention, gate_open, project, stack_targets
from safety_steering_pack.safety_steering.vectors.file import load_vector, save_vector

SIDES = {
    "source_side": Side("source.3", "tinylm/source.3"),
    "target_side": Side("conditioning", "umt5xxl.last"),
}


@pytest.fixture(scope="module")
def world():
    return World()


@pytest.fixture(scope="module")
def fitted(world):
    facts = world.facts(200)
    vector = world.vector(facts=facts)
    benign = world.target(world.facts(300))
    return vector, fit_alignment(
        vector.anchors.states, world.target(facts), benign=AnchorStates(benign, benign), **SIDES
    )


def opened(vector, mix, threshold, states):
    """Share of prompts on which the pooled gate of a mix opens for any category."""
    targets = stack_targets(vector.at("conditioning"), mix, 0)
    p = project(states.double()[:, None], targets)
    how = Intervention("clamp", "token", "pooled", threshold)
    return float(gate_open(p, targets, how, None).any(dim=-1).double().mean())


def test_transfer_suggests_whole_settings_and_the_file_keeps_them(fitted, tmp_path):
    vector, alignment = fitted
    carried = carry_over(vector, alignment, 0.2)
    found = carried.info.suggestion
    assert (found.basis, found.basis_n, found.false_alarm) == ("benign only", 300, FALSE_ALARM)
    assert (found.intervention, found.norm, found.gate, found.branch) == ("clamp", "token", "pooled", "both")
    assert (found.hook_points, found.window, found.mix) == (("conditioning",), (0.0, 1.0), dict(vector.mix))
    assert load_vector(save_vector(carried, tmp_path / "a.safetensors")).info.suggestion == found


def test_the_anchors_alone_are_said_to_be_in_nobodys_style(fitted):
    vector, alignment = fitted
    assert carry_over(vector, replace(alignment, own_benign=None), 0.2).info.suggestion.basis_n == 0


@pytest.mark.parametrize("shrinkage", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("own", [False, True])
def test_further_benign_prompts_keep_the_gate_shut_and_unsafe_ones_open_it(world, fitted, own, shrinkage):
    vector, alignment = fitted
    carried = carry_over(vector, alignment if own else replace(alignment, own_benign=None), shrinkage)
    threshold, benign = carried.info.suggestion.threshold, world.target(world.facts(1000))
    unsafe = torch.cat([world.target(world.facts(200, name)) for name in carried.categories])
    assert opened(carried, carried.mix, threshold / FACTOR, benign) <= 0.05
    assert opened(carried, carried.mix, threshold, benign) <= 0.005
    assert opened(carried, carried.mix, threshold, unsafe) > 0.5


def test_no_mix_opens_the_gate_on_more_benign_prompts(world, fitted):
    vector, alignment = fitted
    only = next(iter(vector.categories))
    narrow = carry_over(vector.with_mix({only: 1.0}), alignment, 0.2)
    assert narrow.info.suggestion.threshold == carry_over(vector, alignment, 0.2).info.suggestion.threshold
    benign, at = world.target(world.facts(1000)), narrow.info.suggestion.threshold / FACTOR
    every = dict.fromkeys(narrow.categories, 1.0)
    assert opened(narrow, {only: 1.0}, at, benign) <= opened(narrow, every, at, benign) <= 0.05


def test_clamp_at_the_suggested_strength_moves_a_prompt_at_the_threshold_by_the_share(fitted):
    vector, alignment = fitted
    carried = carry_over(vector, alignment, 0.2)
    point, found = carried.at("conditioning"), carried.info.suggestion
    moved = []
    for direction in point.categories.values():
        mean = float(direction.center + found.threshold * direction.std_pooled)
        noise = torch.randn(200_000, generator=torch.Generator().manual_seed(1)).double()
        deficit = (float(direction.center) - mean - float(direction.std_token) * noise).clamp_min(0).mean()
        moved.append(found.strength * float(deficit) / float(point.token_norm))
    assert sorted(moved)[len(moved) // 2 - (len(moved) % 2 == 0)] == pytest.approx(SHARE, rel=0.05)


def test_factor_share_and_false_alarm_do_what_their_names_say(fitted):
    vector, alignment = fitted
    found = sharpened(transfer(vector, alignment), alignment.benign, 0.2)
    usual = benign_rule(found.vector, found.lowest)
    assert benign_rule(found.vector, found.lowest, factor=2 * FACTOR).threshold == pytest.approx(
        2 * usual.threshold, abs=0.02
    )
    assert benign_rule(found.vector, found.lowest, share=SHARE / 2).strength == pytest.approx(
        usual.strength / 2, rel=0.05
    )
    assert benign_rule(found.vector, found.lowest, false_alarm=0.1).threshold > usual.threshold
    assert benign_rule(found.vector, found.lowest, share=1e6).strength == MAX_STRENGTH


def test_prompts_that_are_all_alike_give_no_threshold(fitted):
    vector, alignment = fitted
    with pytest.raises(SafetySteeringError, match="same state along the vector's directions"):
        benign_rule(transfer(vector, alignment), torch.zeros(20))
