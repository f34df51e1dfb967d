"""The contract's lines where blocks read the text, in the real server: hook points `cross_attention`.

Line 7 is in test_families: every family's reading modules are hooked there beside its blocks.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from steered_graphs import FAMILIES, apply_vector, chain, patch, plain, random_file, sample, sampler_of

TASKS = pytest.mark.parametrize("key", FAMILIES)
EAGER = patch("SafetySteeringDev_CompileModel", backend="eager")


def steer_reads(server: Any, key: str, **settings: Any) -> Any:
    return apply_vector(random_file(server, key, reads=True), hook_points="cross_attention", **settings)


@TASKS
def test_5_every_block_that_reads_is_steered_in_every_call(server, key):
    steered = sample(server, key, steer_reads(server, key), **sampler_of(key))
    assert not torch.equal(steered.latent, plain(server, key))
    assert torch.isfinite(steered.latent).all()
    assert steered.calls
    for call in steered.calls:
        assert [hook["hook_point"] for hook in call["hooks"]] == FAMILIES[key].reads
    assert f"Moved the states that {len(FAMILIES[key].reads)} blocks read by" in steered.trace["summary"]
    assert steered.hooks_left == 0
    assert torch.equal(sample(server, key).latent, plain(server, key))


@TASKS
def test_1_strength_0_where_blocks_read_is_bit_identical(server, key):
    off = sample(server, key, steer_reads(server, key, strength=0.0))
    assert torch.equal(off.latent, plain(server, key))
    assert off.trace["status"] == "off"


@pytest.mark.parametrize("key", ["wan", "ltxv", "flux"])
def test_2_an_exception_leaves_no_hook_where_blocks_read(server, key):
    fail = patch("SafetySteeringDev_Fail", fail_at_call=2, seconds_per_call=0.0)
    with pytest.raises(RuntimeError, match="failed on purpose in model call 2"):
        sample(server, key, chain(fail, steer_reads(server, key)))
    after = sample(server, key)
    assert after.hooks_left == 0
    assert torch.equal(after.latent, plain(server, key))


@pytest.mark.parametrize("key", ["wan", "ltxv", "flux"])
def test_4_reading_modules_of_a_compiled_model_are_steered(server, key):
    server.client.run(_graph_count(reset=True))
    steering = steer_reads(server, key)
    expected, unsteered = sample(server, key, steering).latent, plain(server, key)
    for steps, wanted in [((EAGER,), unsteered), ((EAGER, steering), expected), ((steering, EAGER), expected)]:
        assert torch.equal(sample(server, key, chain(*steps)).latent, wanted)


def _graph_count(*, reset: bool) -> dict[str, Any]:
    from safety_steering_pack.commands.api_graph import PromptGraph

    graph = PromptGraph()
    graph.add("SafetySteeringDev_GraphCount", reset=reset)
    return graph.prompt


@pytest.mark.parametrize("key", ["wan", "ltxv"])
def test_4_a_cache_of_blocks_answers_where_blocks_read(server, key):
    lists = {"wan": "blocks", "ltxv": "transformer_blocks"}
    for first_block in (False, True):
        cache = patch("SafetySteeringDev_BlockCache", blocks=lists[key], first_block=first_block)
        steps = (cache, steer_reads(server, key))
        runs = [sample(server, key, chain(*order), steps=6) for order in (steps, steps[::-1])]
        assert torch.equal(runs[0].latent, runs[1].latent)
        for run in runs:
            notes = [call["note"] for call in run.calls]
            assert notes == ["", "answered by a cache"] * (len(notes) // 2)
            assert all(bool(call["hooks"]) == (call["note"] == "") for call in run.calls)


@pytest.mark.parametrize(("key", "block"), [("wan", 2), ("ltxv", 2), ("flux", 1)])
def test_5_a_replaced_block_that_reads_fails_closed(server, key, block):
    replaced = patch("SafetySteeringDev_ReplaceBlock", block=block)
    one = apply_vector(random_file(server, key, reads=True), hook_points=FAMILIES[key].reads[block])
    with pytest.raises(RuntimeError, match=r"NotSteeredError.*acted in none of them.*replaced by another node"):
        sample(server, key, chain(replaced, one))
    assert torch.equal(sample(server, key).latent, plain(server, key))


def test_5_a_block_that_no_longer_calls_its_reading_module_fails_closed(comfy_in_process):
    """Another node may give a block a way of its own: then what it reads is not steered, and that is no success."""
    from family_cases import CASES
    from family_cases.harness import Family
    from family_cases.runs import count_hooks, run
    from safety_steering_pack.safety_steering.errors import NotSteeredError

    family = Family(CASES["wan"])
    family.model.blocks[1].forward = lambda x, **others: x
    point = "cross_attention.blocks.1.image"
    with pytest.raises(NotSteeredError, match=rf"{point} was not steered in this call: the hook there did not fire"):
        run(family.case, family.steered((point,)))
    assert count_hooks(family.model) == 0
