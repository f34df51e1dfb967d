"""The gate `prompt` in the real server: the detectors decide once for each row, and every hook point obeys."""

from __future__ import annotations

import pytest
import torch
from steered_graphs import FAMILIES, apply_vector, plain, put_vector, sample, with_detector

KEYS = pytest.mark.parametrize("key", ["wan", "wan22_i2v", "ltxv_guide", "flux"])
GATE = {"gate": "prompt", "gate.false_alarm": 0.01, "gate.token_threshold": 10.0, "hook_points": "all"}
FAR = 1e6


def run(server, key, center, **settings):
    family = FAMILIES[key]
    vector = with_detector(family.vector(), family.text_space, center)
    file_name = put_vector(server, f"prompt_gate_{key}_{center:g}", vector)
    return sample(server, key, apply_vector(file_name, **GATE | settings), cfg=3.0)


@KEYS
def test_an_open_gate_is_no_gate_and_a_shut_one_leaves_the_run_as_it_is(server, key):
    ungated = run(server, key, FAR, gate="off")
    open_, shut = run(server, key, FAR), run(server, key, -FAR)
    assert torch.equal(open_.latent, ungated.latent)
    assert torch.equal(shut.latent, plain(server, key, cfg=3.0))
    assert (open_.trace["status"], shut.trace["status"]) == ("acted", "nothing found")
    hooks = [hook for call in open_.calls for hook in call["hooks"]]
    assert {hook["hook_point"] for hook in hooks} > {"conditioning"}
    assert all(hook["opened"] == ["violence"] for hook in hooks)
    assert open_.trace["summary"].startswith("Found violence in this prompt (")


@pytest.mark.parametrize("key", ["wan", "ltxv"])
def test_each_row_of_a_batch_has_a_decision_of_its_own(server, key):
    def distance(branch: str) -> float:
        """z of the branch's prompt under a detector with center 0."""
        (found,) = {hook["found"]["violence"] for call in run(server, key, FAR, branch=branch).calls
                    for hook in call["hooks"] if hook["hook_point"] == "conditioning"}  # fmt: skip
        return FAR - found

    positive, negative = distance("positive"), distance("negative")
    assert positive != negative
    between = (positive + negative) / 2
    lower = "positive" if positive < negative else "negative"
    both, one = run(server, key, between), run(server, key, FAR, branch=lower)
    assert not torch.equal(one.latent, plain(server, key, cfg=3.0))
    assert torch.equal(both.latent, one.latent)


def test_a_token_threshold_keeps_the_act_on_some_tokens(server):
    result = run(server, "wan", FAR, **{"gate.token_threshold": 0.0})
    acted = [hook["acted"] for call in result.calls for hook in call["hooks"]]
    assert all(0.0 < share < 1.0 for share in acted)


def test_a_vector_without_detectors_is_refused(server):
    file_name = put_vector(server, "no_detectors", FAMILIES["wan"].vector())
    with pytest.raises(RuntimeError, match="The gate 'prompt' needs a vector with detectors"):
        sample(server, "wan", apply_vector(file_name, **GATE))


def test_detectors_of_another_space_are_refused(server):
    file_name = put_vector(server, "other_space", with_detector(FAMILIES["wan"].vector(), "t5xxl.last", 0.0))
    with pytest.raises(RuntimeError, match=r"at conditioning it lives in the space t5xxl.last"):
        sample(server, "wan", apply_vector(file_name, **GATE))
