"""The maths of a source direction, on states whose answer is known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from safety_steering_pack.safety_steering.directions.pairs import (
    PairStates,
    best_layer,
    choose_layers,
    difference,
    judge_layer,
    pair_auc,
    shuffled_auc,
    valence_axis,
)
from safety_steering_pack.safety_steering.errors import SafetySteeringError

WIDTH = 16
HARM, GLOOM, OTHER = torch.eye(WIDTH, dtype=torch.float64)[:3]


def pairs(count: int = 60, *, harm: float = 2.0, gloom: float = 3.0, noise: float = 0.5, seed: int = 0) -> PairStates:
    """Pairs whose unsafe side is harmful and gloomy, and whose negative twins are as gloomy and not harmful."""
    generator = torch.Generator().manual_seed(seed)

    def scatter(scale: float) -> torch.Tensor:
        return scale * torch.randn(count, WIDTH, generator=generator, dtype=torch.float64)

    scene = scatter(1.0)
    names = ("violence", "gore")
    return PairStates(
        unsafe=scene - harm * HARM - gloom * GLOOM + scatter(noise),
        safe=scene + scatter(noise),
        negative=scene - gloom * GLOOM + scatter(noise),
        categories=tuple((names[i % 2],) for i in range(count)),
        splits=tuple("train" if i % 3 else "validation" for i in range(count)),
    )


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a, b, dim=0))


def test_the_direction_is_the_mean_of_the_pairs_differences():
    states = pairs()
    expected = sum(states.safe[i] - states.unsafe[i] for i in range(60)) / 60
    torch.testing.assert_close(difference(states, "keep", valence_axis(states)), expected)
    assert cosine(expected, 2 * HARM + 3 * GLOOM) > 0.98


def test_projecting_takes_gloom_out_exactly_and_twins_take_half_of_it():
    states = pairs()
    axis = valence_axis(states)
    assert cosine(axis, GLOOM) > 0.98
    projected = difference(states, "project", axis)
    assert abs(float(projected @ axis)) < 1e-12
    assert cosine(projected, HARM) > 0.95
    twins = difference(states, "twins", axis)
    torch.testing.assert_close(twins, ((states.safe + states.negative) / 2 - states.unsafe).mean(dim=0))
    assert float(twins @ GLOOM) == pytest.approx(1.5, abs=0.2)


def test_the_valence_control_shows_what_was_removed():
    states = pairs(harm=3.0)
    train, held_out = states.of("train"), states.of("validation")
    axis = valence_axis(train)
    kept, removed = (pair_auc(difference(train, valence, axis), held_out) for valence in ("keep", "project"))
    assert kept.valence > 0.9
    assert 0.3 < removed.valence < 0.7
    assert removed.auc > 0.85
    assert removed.negative > kept.negative


def test_pairs_without_negative_twins_count_as_they_are():
    states = pairs()
    none = replace(states, negative=torch.full_like(states.negative, math.nan))
    axis = valence_axis(none)
    assert not bool(axis.any())
    plain = difference(states, "keep", axis)
    for valence in ("project", "twins", "keep"):
        torch.testing.assert_close(difference(none, valence, axis), plain)
    found = pair_auc(plain, none)
    assert math.isnan(found.valence)
    assert math.isnan(found.negative)
    assert found.auc > 0.9
    some = replace(states, negative=torch.where(torch.arange(60)[:, None] < 30, states.negative, math.nan))
    assert len(some.negatives) == 30
    assert len(some.benign) == 90
    assert bool(difference(some, "twins", axis).isfinite().all())


def test_equal_classes_and_no_pairs_have_no_direction():
    states = pairs()
    with pytest.raises(SafetySteeringError, match="same mean state"):
        difference(replace(states, unsafe=states.safe), "keep", valence_axis(states))
    with pytest.raises(SafetySteeringError, match="no pair"):
        difference(states.of("test"), "keep", valence_axis(states))


def test_shuffled_labels_tell_little():
    states = pairs(harm=0.7, gloom=0.0)
    train, held_out = states.of("train"), states.of("validation")
    real = pair_auc(difference(train, "keep", valence_axis(train)), held_out).auc
    assert 0.5 < shuffled_auc(train, held_out) < real
    assert shuffled_auc(train, held_out) == shuffled_auc(train, held_out)
    assert math.isnan(shuffled_auc(train, states.of("test")))


GROUPS = {"violence": ("violence",), "gore": ("gore",), "all": ("violence", "gore")}


def test_a_layers_row_has_the_controls_beside_the_result():
    rows = {row["category"]: row for row in judge_layer(7, pairs(120), GROUPS, "project")}
    assert list(rows) == list(GROUPS)
    for row in rows.values():
        assert row["layer"] == 7
        assert row["split"] == "validation"
        assert row["auc"] > row["shuffled_auc"]
        assert row["with_valence"]["valence_auc"] > 0.9 > row["valence_auc"]
    # violence and gore share their axis here, so each is found by the other's
    assert rows["violence"]["left_out_auc"] > 0.8
    assert rows["all"]["left_out_auc"] is None
    assert (rows["violence"]["n_train"], rows["violence"]["n_validation"]) == (40, 20)


def test_a_category_on_an_axis_of_its_own_is_not_found_by_the_others():
    states = pairs(120, gloom=0.0)
    own = torch.tensor(["gore" in names for names in states.categories])[:, None]
    states = replace(states, unsafe=torch.where(own, states.unsafe + 2 * HARM - 2 * OTHER, states.unsafe))
    rows = {row["category"]: row for row in judge_layer(0, states, GROUPS, "keep")}
    assert rows["gore"]["auc"] > 0.9
    assert rows["gore"]["left_out_auc"] < 0.7


def test_the_layer_is_the_one_whose_categories_are_found_best():
    quality = {3: 0.3, 5: 2.0, 9: 1.0}
    table = [row for layer, harm in quality.items() for row in judge_layer(layer, pairs(90, harm=harm), GROUPS, "keep")]
    assert best_layer(table, ("violence", "gore")) == 5
    assert best_layer([row for row in table if row["layer"] == 9], ("violence", "gore")) == 9
    blind = [{**row, "auc": None, "auc_negative": None} for row in table]
    with pytest.raises(SafetySteeringError, match="no pair in the validation split"):
        best_layer(blind, ("violence", "gore"))


def test_layers_are_chosen_by_name_number_or_depth():
    assert choose_layers("sweep", 4) == (1, 2, 3, 4)
    assert choose_layers("sweep", 31)[:3] == (1, 3, 5)
    assert len(choose_layers("sweep", 80)) == 16
    assert choose_layers("all", 3) == (0, 1, 2, 3)
    assert choose_layers("12, 4", 30) == (4, 12)
    assert choose_layers("0.9", 30) == (27,)
    assert choose_layers("1.0,0", 30) == (0, 30)
    for wrong in ("", "31", "-1", "deep", "1.5", "nan"):
        with pytest.raises(SafetySteeringError, match="layer"):
            choose_layers(wrong, 30)
