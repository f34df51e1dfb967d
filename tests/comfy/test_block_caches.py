"""Caches that run a model's entry module and skip its blocks on a hit: TeaCache, MagCache, first-block caches."""

from __future__ import annotations

import pytest
import torch
from steered_graphs import chain, patch, plain, sample, steer

LISTS = {"wan": "blocks", "ltxv": "transformer_blocks"}
KEYS = pytest.mark.parametrize("key", LISTS)
KINDS = pytest.mark.parametrize("first_block", [False, True])
STEPS = 6


def cache(key, first_block):
    return patch("SafetySteeringDev_BlockCache", blocks=LISTS[key], first_block=first_block)


@KINDS
@pytest.mark.parametrize("hook_points", ["auto", "conditioning", "all"])
@KEYS
def test_a_hit_is_a_cached_step_and_not_a_steered_one(server, key, hook_points, first_block):
    steps = (cache(key, first_block), steer(server, key, hook_points=hook_points))
    runs = [sample(server, key, chain(*order), steps=STEPS) for order in (steps, steps[::-1])]
    assert torch.equal(runs[0].latent, runs[1].latent)
    assert not torch.equal(runs[0].latent, sample(server, key, steps[0], steps=STEPS).latent)
    assert not torch.equal(runs[0].latent, plain(server, key, steps=STEPS))
    for run in runs:
        notes = [call["note"] for call in run.calls]
        assert notes == ["", "answered by a cache"] * (len(notes) // 2)
        assert all(bool(call["hooks"]) == (call["note"] == "") for call in run.calls)
        assert f"in {STEPS // 2} of {STEPS} steps" in run.trace["summary"]
        assert f"{len(notes) // 2} calls were answered by a cache" in run.trace["summary"]
        assert run.hooks_left == 0


@KINDS
@pytest.mark.parametrize("hook_points", ["auto", "conditioning"])
def test_a_window_that_holds_hits_alone_is_not_steered(server, hook_points, first_block):
    steering = steer(server, "wan", hook_points=hook_points, window_start=0.2, window_end=0.3)
    with pytest.raises(RuntimeError, match="NotSteeredError"):
        sample(server, "wan", chain(cache("wan", first_block), steering), steps=4)
