"""What a vector file asks for is what happens: sigma bins, several categories under a mix, gates."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace

import pytest
import torch
from safety_steering_pack.safety_steering.vectors.vector import SafetyVector
from steered_graphs import FAMILIES, apply_vector, plain, put_vector, sample

EDGES = (0.0, 0.5, 0.8, 0.95, 1.0)
KEYS = pytest.mark.parametrize("key", ["wan", "wan22_i2v", "ltxv_guide", "flux"])


def with_gaps(vector: SafetyVector, gaps) -> SafetyVector:
    """The vector with another gap in each sigma bin."""
    points = {
        name: replace(
            point,
            categories={
                category: replace(direction, gap=torch.tensor(gaps)) for category, direction in point.categories.items()
            },
        )
        for name, point in vector.hook_points.items()
    }
    return replace(vector, hook_points=points)


def moved(result):
    """(sigma, category -> change of the projection) of every call of a run."""
    for call in result.calls:
        (hook,) = call["hooks"]
        yield call["sigma"], {name: hook["after"][name] - hook["before"][name] for name in hook["after"]}


@pytest.mark.parametrize("hook_points", ["auto", "conditioning"])
@KEYS
def test_every_step_takes_its_sigma_bin(server, key, hook_points):
    gaps = [1.0, 2.0, 3.0, 4.0]
    file_name = put_vector(server, f"bins_{key}", with_gaps(FAMILIES[key].vector(sigma_edges=EDGES), gaps))
    result = sample(server, key, apply_vector(file_name, strength=1.0, norm="none", hook_points=hook_points), steps=8)
    taken = set()
    for sigma, change in moved(result):
        expected = gaps[bisect_right(EDGES[1:-1], sigma)]
        assert change["violence"] == pytest.approx(expected, rel=1e-3)
        taken.add(expected)
    assert len(taken) > 2, "the run must pass through several bins for this to mean anything"


@pytest.mark.parametrize(
    "mix", [{"violence": 1.0, "gore": 0.0}, {"violence": 0.5, "gore": 2.0}, {"violence": -1.0, "gore": 1.0}]
)
@KEYS
def test_a_mix_weighs_the_categories(server, key, mix):
    vector = FAMILIES[key].vector(categories=("violence", "gore"))
    suggestion = replace(vector.info.suggestion, mix=mix)
    name = "_".join(["mix", key, *(f"{weight:g}" for weight in mix.values())])
    file_name = put_vector(server, name, vector.with_info(suggestion=suggestion))
    result = sample(server, key, apply_vector(file_name, strength=1.0, norm="none"))
    assert result.trace["settings"]["mix"] == mix
    directions = {name: vector.at(FAMILIES[key].block).categories[name].direction[0] for name in mix}
    pushed = sum(weight * 4.0 * directions[name] for name, weight in mix.items())
    for _, change in moved(result):
        assert set(change) == {name for name, weight in mix.items() if weight}  # weight 0: not even measured
        for name, value in change.items():
            assert value == pytest.approx(float(pushed @ directions[name]), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("gate", ["pooled", "token"])
@pytest.mark.parametrize("intervention", ["add", "ablate"])
@KEYS
def test_a_gate_opens_and_closes(server, key, gate, intervention):
    file_name = put_vector(server, f"gate_{key}", FAMILIES[key].vector())
    plain_latent = plain(server, key)
    ungated = sample(server, key, apply_vector(file_name, intervention=intervention)).latent
    settings = {"gate": gate, "intervention": intervention}
    open_, shut = (
        sample(server, key, apply_vector(file_name, **settings, **{"gate.threshold": value})) for value in (10.0, -10.0)
    )
    assert torch.equal(open_.latent, ungated)
    assert torch.allclose(shut.latent, plain_latent, rtol=0, atol=1e-4 * float(plain_latent.abs().max()))
    assert {hook["acted"] for call in open_.calls for hook in call["hooks"]} == {1.0}
    assert {hook["acted"] for call in shut.calls for hook in call["hooks"]} == {0.0}


@KEYS
def test_a_token_gate_acts_on_some_tokens(server, key):
    file_name = put_vector(server, f"gate_{key}", FAMILIES[key].vector())
    settings = {"gate": "token", "gate.threshold": 0.0, "strength": 0.5}
    result = sample(server, key, apply_vector(file_name, **settings))
    acted = [hook["acted"] for call in result.calls for hook in call["hooks"]]
    assert all(0.0 < share < 1.0 for share in acted)
