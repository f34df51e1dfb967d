"""Sharpening a carried direction by benign states, and how much of a direction the anchors cover."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from portable import TARGET, World
from safety_steering_pack.safety_steering.alignment.alignment import AnchorStates, Side
from safety_steering_pack.safety_steering.alignment.anchors import coverage
from safety_steering_pack.safety_steering.alignment.file import load_alignment, save_alignment
from safety_steering_pack.safety_steering.alignment.fit import fit_alignment
from safety_steering_pack.safety_steering.alignment.sharpen import STYLE_WEIGHT, sharpen, sharpened
from safety_steering_pack.safety_steering.alignment.transfer import carry_over, fit_step, transfer
from safety_steering_pack.safety_steering.directions.statistics import auc
from safety_steering_pack.safety_steering.errors import SafetySteeringError

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
    own = AnchorStates(benign, benign + 1)
    return vector, fit_alignment(vector.anchors.states, world.target(facts), benign=own, **SIDES)


@pytest.mark.parametrize("pooled", [False, True])
def test_a_sharpened_direction_is_shrunk_ldas_with_the_carried_difference(fitted, pooled):
    vector, alignment = fitted
    carried = transfer(vector, alignment)
    sharp = sharpen(carried, alignment.benign, 0.5, alignment.target_anchors if pooled else None)
    covariance = torch.cov(alignment.benign.pooled.double().T)
    if pooled:
        covariance = 0.8 * covariance + 0.2 * torch.cov(alignment.target_anchors.pooled.double().T)
    ridge = 0.5 * covariance.diagonal().mean() * torch.eye(TARGET, dtype=torch.float64)
    for name, before in carried.at("conditioning").categories.items():
        after = sharp.at("conditioning").categories[name]
        u = before.direction[0].double()
        w = torch.nn.functional.normalize(torch.linalg.solve(covariance + ridge, u), dim=0)
        torch.testing.assert_close(after.direction[0].double(), w, rtol=1e-4, atol=1e-5)
        assert float(after.gap) == pytest.approx(float(before.gap) * float(u @ w), rel=1e-4)
        along = alignment.benign.pooled.double() @ w
        assert float(after.center) == pytest.approx(float(along.mean()), rel=1e-4)
        assert float(after.std_pooled) > float(along.std())


@pytest.mark.parametrize("shrinkage", [0.2, float("inf")])
@pytest.mark.parametrize("pooled", [False, True])
def test_the_spreads_are_measured_on_each_fold_along_a_direction_made_without_it(fitted, pooled, shrinkage):
    vector, alignment = fitted
    carried, benign = transfer(vector, alignment), alignment.benign
    anchors = alignment.target_anchors if pooled else None
    found = sharpened(carried, benign, shrinkage, anchors)
    names = carried.categories
    apart = {name: torch.empty(2, len(benign.pooled), dtype=torch.float64) for name in names}
    for fold in torch.randperm(300, generator=torch.Generator().manual_seed(0)).chunk(5):
        kept = [row for row in range(300) if row not in set(fold.tolist())]
        others = AnchorStates(benign.pooled[kept], benign.token[kept])
        without = sharpen(carried, others, shrinkage, anchors).at("conditioning").categories
        for name in names:
            w = without[name].direction[0].double()
            for side, states in enumerate((benign.pooled.double(), benign.token.double())):
                apart[name][side, fold] = (states[fold] - states[kept].mean(dim=0)) @ w
    for name, direction in found.vector.at("conditioning").categories.items():
        std_pooled, std_token = apart[name].square().mean(dim=1).sqrt()
        assert float(direction.std_pooled) == pytest.approx(float(std_pooled), rel=1e-4)
        assert float(direction.std_token) == pytest.approx(float(std_token), rel=1e-4)
    z = torch.stack([apart[name][0] / apart[name][0].square().mean().sqrt() for name in names])
    torch.testing.assert_close(found.lowest, z.min(dim=0).values, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("count", [16, 30, 300])
def test_spreads_are_those_of_prompts_that_the_direction_was_not_made_from(world, fitted, count):
    vector, alignment = fitted
    carried, further = transfer(vector, alignment), world.target(world.facts(2000)).double()
    states = AnchorStates(alignment.benign.pooled[:count], alignment.benign.token[:count])
    found = sharpened(carried, states, 0.1)
    for direction in found.vector.at("conditioning").categories.values():
        along = further @ direction.direction[0].double()
        assert float(direction.std_pooled) == pytest.approx(float(along.std()), rel=0.5 if count < 100 else 0.1)
    assert found.lowest.shape == (count,)


def test_it_tells_unsafe_from_benign_better(world, fitted):
    vector, alignment = fitted
    unsafe, benign = world.target(world.facts(300, "violence")), world.target(world.facts(300))

    def deviations(found):
        """How many benign standard deviations the unsafe mean lies below the benign one."""
        one = found.at("conditioning").categories["violence"]
        u = one.direction[0]
        assert auc(benign @ u, unsafe @ u) > 0.95
        return float((one.center - (unsafe @ u).mean()) / one.std_pooled)

    assert deviations(carry_over(vector, alignment, 0.1)) > 1.1 * deviations(carry_over(vector, alignment, 0.0))


def test_the_carried_vector_is_sharpened_on_both_groups_if_there_are_two(fitted):
    vector, alignment = fitted
    carried = transfer(vector, alignment)
    both = sharpen(carried, alignment.benign, 0.3, alignment.target_anchors)
    found = carry_over(vector, alignment, 0.3)
    alone = carry_over(vector, replace(alignment, own_benign=None), 0.3)
    by_anchors = sharpen(transfer(vector, replace(alignment, own_benign=None)), alignment.target_anchors, 0.3)
    for one, other in ((found, both), (alone, by_anchors)):
        for name, tensor in one.tensors().items():
            assert torch.equal(tensor, other.tensors()[name]), name
    step = found.info.provenance[-1]
    assert (step["anchors"], step["style_weight"]) == (200, STYLE_WEIGHT)
    assert "anchors" not in alone.info.provenance[-1]


def test_infinite_shrinkage_measures_anew_and_leaves_the_direction(fitted):
    vector, alignment = fitted
    carried = transfer(vector, alignment)
    same = sharpen(carried, alignment.target_anchors, float("inf"))
    for name, before in carried.at("conditioning").categories.items():
        after = same.at("conditioning").categories[name]
        torch.testing.assert_close(after.direction, before.direction, rtol=1e-6, atol=1e-7)
        assert float(after.gap) == pytest.approx(float(before.gap), rel=1e-5)
        assert float(after.center) != float(before.center)


def test_zero_is_off_and_the_provenance_says_what_was_done(fitted):
    vector, alignment = fitted
    plain, unsharpened = transfer(vector, alignment), carry_over(vector, alignment, 0.0)
    assert unsharpened.sha256 == plain.with_info(suggestion=unsharpened.info.suggestion).sha256
    sharp = carry_over(vector, alignment, 2.0)
    step = sharp.info.provenance[-1]
    assert (step["step"], step["shrinkage"], step["prompts"]) == ("sharpen", 2.0, 300)
    assert fit_step(sharp)["alignment_sha256"] == alignment.sha256
    assert dict(sharp.mix) == dict(vector.mix)


def test_what_cannot_be_sharpened_is_said(fitted):
    vector, alignment = fitted
    carried, states = transfer(vector, alignment), alignment.benign.pooled
    for benign, shrinkage, message in (
        (states[:10], 1.0, "10 benign prompts are too few"),
        (states[:, :5], 1.0, "5 wide and the vector 40"),
        (states, -1.0, "above 0"),
    ):
        with pytest.raises(SafetySteeringError, match=message):
            sharpen(carried, AnchorStates(benign, benign), shrinkage)


def test_own_benign_states_give_center_and_spreads_and_stay_in_the_file(fitted, tmp_path):
    vector, alignment = fitted
    again = load_alignment(save_alignment(alignment, tmp_path / "a.safetensors"))
    assert again.sha256 == alignment.sha256
    assert torch.equal(again.benign.token, alignment.own_benign.token)
    for name, direction in transfer(vector, alignment).at("conditioning").categories.items():
        along = alignment.own_benign.pooled.double() @ direction.direction[0].double()
        assert float(direction.center) == pytest.approx(float(along.mean()), rel=1e-4), name


def test_what_the_anchors_hardly_vary_by_is_covered_little():
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(300, 1, generator=generator)
    # two channels that move together, and a third
    source = torch.cat([shared, shared, torch.randn(300, 1, generator=generator)], dim=1)
    source += 0.05 * torch.randn(300, 3, generator=generator)
    target = shared + 2 * torch.randn(300, 4, generator=generator)
    directions = {"together": torch.tensor([1.0, 1.0, 0.0]), "apart": torch.tensor([1.0, -1.0, 0.0])}
    fitted = fit_alignment(source, target, **SIDES)
    shares = coverage(directions, source, fitted.source_scale, fitted.map.chosen["penalty"])
    assert shares["together"] > 0.8
    assert 0 <= shares["apart"] < 0.3
