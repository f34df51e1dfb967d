"""Algebra on vectors against the same operations on the data that they were measured on, and its provenance."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safety_steering_pack.safety_steering.errors import MismatchError, SafetySteeringError
from safety_steering_pack.safety_steering.vectors.vector import (
    Direction,
    HookPointDirections,
    SafetyVector,
    Suggestion,
    VectorInfo,
)
from tiny.vectors import random_vector
from vector_algebra import add, merge, scale, select

properties = settings(max_examples=30, deadline=None)  # no deadline: the machine may be busy


WIDTH = 12
SPACES = {"conditioning": ("umt5xxl.last", 8), "block.blocks.2.image": ("tiny/2", 6)}


def clouds(seed: int, benign_rows: int = 200) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Benign states (n, D), and the means of two kinds of unsafe states around them."""
    generator = torch.Generator().manual_seed(seed)
    benign = torch.randn(benign_rows, WIDTH, generator=generator) * torch.rand(WIDTH, generator=generator) * 2
    unsafe = torch.randn(2, WIDTH, generator=generator)
    return benign, unsafe[0], unsafe[1]


def measured(benign: torch.Tensor, displacement: torch.Tensor, category: str = "violence") -> SafetyVector:
    """A vector along `displacement`, with center and deviations measured on the benign states."""
    gap = displacement.norm().reshape(1)
    unit = displacement / gap
    projections = benign @ unit
    std = projections.std().reshape(1)
    direction = Direction(unit[None], gap, projections.mean().reshape(1), std, std)
    point = HookPointDirections("umt5xxl.last", torch.tensor([0.0, 1.0]), torch.ones(1), {category: direction})
    info = VectorInfo("native", "measured", family="wan", provenance=({"operation": "fit", "category": category},))
    return SafetyVector({"conditioning": point}, info)


def only(vector: SafetyVector) -> Direction:
    (direction,) = vector.at("conditioning").categories.values()
    return direction


def assert_same_direction(actual: Direction, expected: Direction) -> None:
    for name in ("direction", "gap", "center"):
        torch.testing.assert_close(getattr(actual, name), getattr(expected, name), rtol=1e-4, atol=1e-5)


@properties
@given(st.integers(0, 10_000))
def test_a_sum_is_what_would_be_measured_along_the_summed_displacement(seed):
    benign, unsafe_a, unsafe_b = clouds(seed)
    a, b = measured(benign, benign.mean(0) - unsafe_a), measured(benign, benign.mean(0) - unsafe_b)
    direct = only(measured(benign, 2 * benign.mean(0) - unsafe_a - unsafe_b))
    total = only(add(a, b))
    assert_same_direction(total, direct)  # the center too: it is linear in the displacement
    assert (total.std_pooled >= direct.std_pooled * (1 - 1e-4)).all()  # an upper bound, as documented
    assert (total.std_token >= direct.std_token * (1 - 1e-4)).all()


@properties
@given(st.integers(0, 10_000), st.floats(-5, 5).filter(lambda x: abs(x) > 1e-3))
def test_scaling_is_what_would_be_measured_along_the_scaled_displacement(seed, factor):
    benign, unsafe, _ = clouds(seed)
    scaled = only(scale(measured(benign, benign.mean(0) - unsafe), factor))
    direct = only(measured(benign, factor * (benign.mean(0) - unsafe)))
    assert_same_direction(scaled, direct)
    torch.testing.assert_close(scaled.std_pooled, direct.std_pooled)


@properties
@given(st.integers(0, 10_000))
def test_adding_a_vector_to_itself_doubles_its_gap_alone(seed):
    benign, unsafe, _ = clouds(seed)
    a = measured(benign, benign.mean(0) - unsafe)
    assert_same_direction(only(add(a, a)), only(scale(a, 2.0)))


def test_sums_go_by_hook_point_category_and_sigma_bin():
    a = random_vector(SPACES, categories=("violence", "gore"), sigma_edges=(0.0, 0.5, 1.0), seed=1)
    b = random_vector(SPACES, categories=("violence", "gore"), sigma_edges=(0.0, 0.5, 1.0), seed=2)
    total = add(a, b)
    for name, point in total.hook_points.items():
        for category, direction in point.categories.items():
            x, y = a.at(name).categories[category], b.at(name).categories[category]
            moved = x.gap[:, None] * x.direction + y.gap[:, None] * y.direction
            torch.testing.assert_close(direction.gap[:, None] * direction.direction, moved)


def test_merge_keeps_every_category_unchanged_and_both_mixes():
    a = random_vector(SPACES, categories=("violence",), seed=1).with_mix({"violence": 0.5})
    b = random_vector(SPACES, categories=("gore", "hate"), seed=2).with_mix({"gore": 2.0})
    both = merge(a, b)
    assert both.categories == ("violence", "gore", "hate")
    assert dict(both.mix) == {"violence": 0.5, "gore": 2.0}
    assert both.at("conditioning").categories["hate"] is b.at("conditioning").categories["hate"]


def test_select_keeps_what_was_asked_for():
    vector = random_vector(SPACES, categories=("violence", "gore")).with_info(
        validation_auc={"violence": 0.9},
        suggestion=Suggestion(2.0, ("conditioning", "block.blocks.2.image"), "clamp", {"gore": 1.0}),
    )
    part = select(vector, hook_points=("block.blocks.2.image",), categories=("gore",))
    assert tuple(part.hook_points) == ("block.blocks.2.image",)
    assert part.categories == ("gore",)
    assert part.info.suggestion == Suggestion(2.0, ("block.blocks.2.image",), "clamp")
    assert part.info.validation_auc == {"violence": 0.9}
    assert select(vector).categories == vector.categories


def test_provenance_grows_by_one_record_that_names_the_parents():
    a = random_vector(SPACES, seed=1)
    b = random_vector(SPACES, seed=2).with_info(gap_kind="measured", validated_on=("wan2.1-1.3b",))
    total = add(a, b)
    assert total.info.provenance == (
        {"operation": "random", "seed": 1},
        {"operation": "random", "seed": 2},
        {"operation": "add", "parents": [a.sha256, b.sha256]},
    )
    again = scale(total, -0.5)
    assert again.info.provenance[-1] == {"operation": "scale", "parents": [total.sha256], "factor": -0.5}
    assert again.info.provenance[:-1] == total.info.provenance
    assert merge(a, select(random_vector(SPACES, categories=("gore",)))).info.provenance[-1]["operation"] == "merge"


def test_a_derived_vector_claims_nothing_that_was_measured_on_its_parents():
    measured_parent = random_vector(SPACES, seed=1).with_info(
        gap_kind="measured", validated_on=("wan2.1-1.3b",), validation_auc={"violence": 0.9}
    )
    estimated_parent = random_vector(SPACES, seed=2)
    total = add(measured_parent, estimated_parent)
    assert total.info.validated_on == ()
    assert total.info.validation_auc == {}
    assert total.info.gap_kind == "estimated"  # as soon as one parent's is


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"spaces": {"conditioning": ("t5xxl.last", 8)}}, "different hook points"),
        ({"spaces": {**SPACES, "conditioning": ("t5xxl.last", 8)}}, "umt5xxl.last .8 wide. and t5xxl.last .8 wide."),
        ({"spaces": {**SPACES, "conditioning": ("umt5xxl.last", 9)}}, "different spaces"),
        ({"spaces": SPACES, "sigma_edges": (0.0, 2.0)}, "different sigma bins"),
        ({"spaces": SPACES, "sigma_edges": (0.0, 0.5, 1.0)}, "different sigma bins"),
        ({"spaces": SPACES, "categories": ("gore",)}, "categories .violence. and .gore. cannot be added"),
    ],
)
def test_vectors_that_do_not_belong_together_are_not_added(other, words):
    with pytest.raises(MismatchError, match=words):
        add(random_vector(SPACES), random_vector(**other))


def test_other_refusals():
    vector = random_vector(SPACES)
    with pytest.raises(MismatchError, match="Both vectors have the category 'violence'"):
        merge(vector, random_vector(SPACES, seed=1))
    with pytest.raises(SafetySteeringError, match="cancel each other"):
        add(vector, scale(vector, -1.0))
    with pytest.raises(MismatchError, match="has no category 'gore', only: violence"):
        select(vector, categories=("gore",))
    with pytest.raises(MismatchError, match="no hook point 'clip_vision'"):
        select(vector, hook_points=("clip_vision",))
    for factor in (0.0, float("nan"), float("inf")):
        with pytest.raises(SafetySteeringError, match="cannot be scaled by"):
            scale(vector, factor)
