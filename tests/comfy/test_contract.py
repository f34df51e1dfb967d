"""The contract of design.md in the real server, line by line, on every model family and task, through both samplers.

Its wider lines have files of their own: test_contract_orders (4), _compile (4), _conditions (6), _tokens (7), _vectors.
"""

from __future__ import annotations

import json

import pytest
import torch
from safety_steering_pack.commands.api_graph import PromptGraph
from safety_steering_pack.safety_steering.steering.interventions import (
    INTERVENTIONS,
    NORMS,
    Intervention,
    stack_targets,
)
from steered_graphs import FAMILIES, chain, load_latent, patch, plain, run_anew, sample, sampler_of, steer, steered_once
from tiny.graphs import cfg_guider, save_latent
from torch.utils._python_dispatch import TorchDispatchMode

KSAMPLER: dict = {}
ADVANCED = {"guider": cfg_guider}
TASKS = pytest.mark.parametrize("key", FAMILIES)
# every task, and both samplers by turns: that they do the same is a test of its own
TURNS = pytest.mark.parametrize(("key", "sampler"), [pytest.param(key, sampler_of(key), id=key) for key in FAMILIES])


@pytest.mark.parametrize("hook_points", ["auto", "conditioning"])
@TASKS
def test_steering_changes_the_result_and_says_so(server, key, hook_points):
    steered = steered_once(server, key, hook_points=hook_points)
    assert torch.isfinite(steered.latent).all()
    assert not torch.equal(steered.latent, plain(server, key))
    assert steered.trace["status"] == "acted"
    assert all(call["hooks"] for call in steered.calls)


@TASKS
def test_both_samplers_steer_alike(server, key):
    advanced = sample(server, key, steer(server, key, hook_points="auto"), **ADVANCED)
    assert torch.equal(advanced.latent, steered_once(server, key, hook_points="auto").latent)
    assert advanced.calls == steered_once(server, key, hook_points="auto").calls


@pytest.mark.parametrize("sampler", [KSAMPLER, ADVANCED], ids=["KSampler", "SamplerCustomAdvanced"])
@TASKS
def test_1_strength_0_is_bit_identical_to_no_node(server, key, sampler):
    off = sample(server, key, steer(server, key, strength=0.0), **sampler)
    assert torch.equal(off.latent, plain(server, key))
    assert off.trace["status"] == "off"


@TASKS
def test_2_a_steered_run_leaves_nothing_behind(server, key):
    before = plain(server, key)
    assert sample(server, key, steer(server, key, hook_points="all")).hooks_left == 0
    # the same loaded model, no reload in between
    assert torch.equal(sample(server, key).latent, before)


@TURNS
def test_2_an_exception_inside_a_model_call_leaves_no_hook(server, key, sampler):
    fail = patch("SafetySteeringDev_Fail", fail_at_call=2, seconds_per_call=0.0)
    with pytest.raises(RuntimeError, match="failed on purpose in model call 2"):
        sample(server, key, chain(fail, steer(server, key, hook_points="all")), **sampler)
    after = sample(server, key)
    assert after.hooks_left == 0
    assert torch.equal(after.latent, plain(server, key))


@TURNS
def test_2_an_interrupt_inside_a_model_call_leaves_no_hook(server, key, sampler):
    graph = PromptGraph()
    slow = patch("SafetySteeringDev_Fail", fail_at_call=0, seconds_per_call=0.2)
    steered = chain(slow, steer(server, key, hook_points="all"))
    save_latent(graph, FAMILIES[key].graph(graph, steered, steps=40, **sampler).samples, "interrupted")
    prompt_id = server.client.submit(run_anew(graph))
    server.client.wait_for(prompt_id, "progress")
    server.client.interrupt()
    assert server.client.result(prompt_id).status == "interrupted"
    after = sample(server, key)
    assert after.hooks_left == 0
    assert torch.equal(after.latent, plain(server, key))


@TURNS
def test_3_two_branches_of_one_graph_do_not_touch_each_other(server, key, sampler):
    alone = steered_once(server, key, hook_points="auto").latent
    graph = PromptGraph()
    steering = steer(server, key, hook_points="auto")
    branches = [FAMILIES[key].graph(graph, branch, steps=2, **sampler) for branch in (None, steering, None)]
    saved = [save_latent(graph, branch.samples, "branch").id for branch in branches]
    run = server.client.run(run_anew(graph)).succeeded()
    latents = [load_latent(server, run, node_id) for node_id in saved]
    for latent, expected in zip(latents, [plain(server, key), alone, plain(server, key)], strict=True):
        assert torch.equal(latent, expected)


@pytest.mark.parametrize(("key", "block"), [("wan", 2), ("wan22_i2v", 2), ("ltxv", 2), ("ltxv_guide", 2), ("flux", 1)])
def test_5_a_replaced_block_fails_closed(server, key, block):
    replaced = patch("SafetySteeringDev_ReplaceBlock", block=block)
    with pytest.raises(RuntimeError, match=r"NotSteeredError.*acted in none of them.*replaced by another node"):
        sample(server, key, chain(replaced, steer(server, key)))
    # the refusal leaves nothing behind
    assert torch.equal(sample(server, key).latent, plain(server, key))


@pytest.mark.parametrize("key", ["wan", "ltxv", "flux"])
def test_5_a_latent_that_is_no_picture_fails_closed(server, key):
    """What overflows behind the steered block in the last step never shows in the hook's own numbers."""
    overflow = patch("SafetySteeringDev_Overflow")
    with pytest.raises(RuntimeError, match=r"NotSteeredError.*The steered run led to values that are not finite"):
        sample(server, key, chain(steer(server, key), overflow), steps=1)
    assert torch.equal(sample(server, key).latent, plain(server, key))


@pytest.mark.parametrize("key", ["wan", "ltxv", "flux"])
def test_5_a_run_outside_the_window_says_so_loudly(server, key):
    outside = sample(server, key, steer(server, key, window_end=0.1), denoise=0.4)
    assert outside.trace["status"] == "not in window"
    assert "Widen the window" in outside.trace["summary"]
    assert "outside the window" in server.log()
    assert torch.equal(outside.latent, plain(server, key, denoise=0.4))


@pytest.mark.parametrize("key", ["wan", "wan_i2v", "ltxv", "flux"])
def test_5_the_branch_is_respected(server, key):
    both, positive, negative = (
        sample(server, key, steer(server, key, branch=branch), cfg=3.0) for branch in ("both", "positive", "negative")
    )
    latents = [plain(server, key, cfg=3.0), both.latent, positive.latent, negative.latent]
    assert not any(torch.equal(a, b) for i, a in enumerate(latents) for b in latents[:i])
    assert positive.calls[0]["rows"] == {"positive": 1, "negative": 1}
    # at cfg 1 core leaves the negative branch out: nothing to steer there, and that is said
    alone = sample(server, key, steer(server, key, branch="negative"), cfg=1.0)
    assert alone.trace["status"] == "not in window"
    assert "never called for the chosen branch" in alone.trace["summary"]


def test_5_steering_report_shows_the_trace(server):
    graph = PromptGraph()
    sampled = FAMILIES["wan"].graph(graph, steer(server, "wan"), steps=2)
    report = graph.add("SafetySteering_SteeringReport", model=sampled.model, samples=sampled.samples)
    shown = graph.add("PreviewAny", source=report[1])
    trace = graph.add("SafetySteeringDev_Trace", model=sampled.model, after=sampled.samples)
    run = server.client.run(run_anew(graph)).succeeded()
    assert json.loads(run.text(shown.id)) == json.loads(run.text(trace.id))
    assert run.outputs[report.id]["images"]


class NoHostReads(TorchDispatchMode):
    """Raises when a tensor's value is read on the host, which would stall a GPU."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket in READS:
            raise AssertionError(f"a hook reads a tensor on the host: {function}")
        return function(*args, **(kwargs or {}))


READS = {torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero, torch.ops.aten.equal}


@pytest.mark.parametrize("gate", ["off", "pooled", "token"])
@pytest.mark.parametrize("intervention", INTERVENTIONS)
@pytest.mark.parametrize("norm", NORMS)
def test_8_no_hook_reads_a_tensor_on_the_host(comfy_in_process, gate, intervention, norm):
    from safety_steering_pack.bridge.models.families.schema import Stream
    from safety_steering_pack.bridge.models.tokens import TokenRange
    from safety_steering_pack.bridge.steering.injection import BlockHook, Edit

    vector = FAMILIES["wan"].vector(categories=("violence", "gore"))
    point = vector.at(FAMILIES["wan"].block)
    hook = BlockHook(Stream("image"))
    mask = torch.arange(10).reshape(1, 10, 1) > 2
    hook.edit = Edit(
        targets=stack_targets(point, vector.mix, 0).to("cpu", torch.float32),
        how=Intervention(intervention, norm, gate, 0.5),
        strength=torch.ones(1, 1, 1),
        rows=torch.tensor([True, False])[:, None, None],
        tokens=TokenRange(1, 10, mask),
    )
    with NoHostReads():
        steered = hook(torch.nn.Identity(), (), torch.randn(2, 12, 32).bfloat16())
    assert steered.shape == (2, 12, 32)
    with pytest.raises(AssertionError, match="reads a tensor"), NoHostReads():
        bool(steered.sum() > 0)  # the check itself works


@TASKS
def test_9_a_run_repeats_on_a_used_and_on_a_fresh_server(server, key):
    steered = steer(server, key, hook_points="all", gate="token", **{"gate.threshold": 0.5})
    first = sample(server, key, steered, fresh=True)
    other_seed = sample(server, key, steered, seed=2)
    again = sample(server, key, steered)
    other_fresh = sample(server, key, steered, fresh=True, seed=2)
    assert torch.equal(first.latent, again.latent)
    assert torch.equal(other_seed.latent, other_fresh.latent)
    assert not torch.equal(first.latent, other_seed.latent)
    assert first.calls == again.calls
    assert first.trace["vector"]["sha256"] == other_fresh.trace["vector"]["sha256"]
