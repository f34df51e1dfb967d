"""Contract line 4 under torch.compile of the whole model: Apply before and after it, other strengths, Apply removed."""

from __future__ import annotations

import pytest
import torch
from safety_steering_pack.commands.api_graph import PromptGraph
from steered_graphs import FAMILIES, chain, patch, plain, sample, sampler_of, steer

EAGER = patch("SafetySteeringDev_CompileModel", backend="eager")
AOT = patch("SafetySteeringDev_CompileModel", backend="aot_eager")


def count_graphs(server, *, reset=False):
    """How many graphs the server has compiled since the last reset."""
    graph = PromptGraph()
    counted = graph.add("SafetySteeringDev_GraphCount", reset=reset)
    return int(server.client.run(graph.prompt).succeeded().text(counted.id))


@pytest.fixture(autouse=True)
def _no_graphs_of_others(server):
    """torch.compile gives up on a function after eight versions of it: each test starts at none, and none gives up."""
    count_graphs(server, reset=True)
    start = len(server.log())
    yield
    assert "recompile_limit" not in server.log()[start:]


@pytest.mark.parametrize("key", ["wan", "ltxv", "flux"])
def test_4_a_compiled_run_equals_the_uncompiled_one(server, key):
    steering = steer(server, key, hook_points=f"conditioning, {FAMILIES[key].block}")
    expected = sample(server, key, steering).latent
    # the second order brings another Apply to the graphs of the first; then there is none
    for steps in [(EAGER, steering), (steering, EAGER)]:
        result = sample(server, key, chain(*steps))
        assert torch.equal(result.latent, expected)
        assert all(len(call["hooks"]) == 2 for call in result.calls)
        assert result.hooks_left == 0
    assert torch.equal(sample(server, key, EAGER).latent, plain(server, key))
    assert count_graphs(server) > 0


@pytest.mark.parametrize("key", list(FAMILIES))
def test_4_a_model_that_was_compiled_plain_is_steered_afterwards(server, key):
    """The plain graph lacks our hooks: torch must notice that they have come, in the thread that ComfyUI samples in."""
    steering = steer(server, key)
    expected, unsteered = sample(server, key, steering).latent, plain(server, key)
    for steps, wanted in [((EAGER,), unsteered), ((EAGER, steering), expected)] * 2:
        assert torch.equal(sample(server, key, chain(*steps), **sampler_of(key)).latent, wanted)


def test_4_other_strengths_need_no_other_graph_and_apply_can_go_again(server):
    def steering(step):
        return steer(server, "wan", strength=0.5 + step / 4, intervention="clamp")

    assert torch.equal(sample(server, "wan", EAGER).latent, plain(server, "wan"))
    counts = [count_graphs(server)]
    for step in range(12):
        steps = [EAGER, steering(step)]
        result = sample(server, "wan", chain(*(reversed(steps) if step % 2 else steps)))
        assert all(call["hooks"] for call in result.calls)
        counts.append(count_graphs(server))
    assert torch.equal(result.latent, sample(server, "wan", steering(11)).latent)
    assert torch.equal(sample(server, "wan", EAGER).latent, plain(server, "wan"))
    assert counts[0] < counts[2] == counts[-1] == count_graphs(server)


def test_4_aot_eager_agrees(server):
    steering = steer(server, "wan")
    expected = sample(server, "wan", steering).latent
    compiled = sample(server, "wan", chain(AOT, steering)).latent
    torch.testing.assert_close(compiled, expected, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(compiled, plain(server, "wan"), rtol=1e-2, atol=1e-2)
