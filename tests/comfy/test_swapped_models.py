"""Nodes that swap a model's class, wrap it or replace its blocks: steered, told, or refused by the swap's name."""

from __future__ import annotations

import pytest
import torch
from steered_graphs import FAMILIES, chain, patch, plain, sample, steer

KEYS = pytest.mark.parametrize("key", ["wan", "ltxv", "flux"])
LISTS = {"wan": "blocks", "ltxv": "transformer_blocks"}
POINTS = pytest.mark.parametrize("hook_points", ["auto", "conditioning"])
SWAP = patch("SafetySteeringDev_SwapClass")


def bit_equal_in_both_orders(server, key, other, **settings):
    """The latents of `other` with steering, before it and after it, as those of steering alone; the first's trace."""
    alone = sample(server, key, steer(server, key, **settings))
    steps = (other, steer(server, key, **settings))
    runs = [sample(server, key, chain(*order)) for order in (steps, steps[::-1])]
    for run in runs:
        assert run.trace["status"] == "acted"
        assert torch.equal(run.latent, alone.latent)
        assert not torch.equal(run.latent, plain(server, key))
        assert run.hooks_left == 0
    return runs[0]


@POINTS
@KEYS
def test_a_derived_class_is_steered_as_its_family(server, key, hook_points):
    run = bit_equal_in_both_orders(server, key, SWAP, hook_points=hook_points)
    assert any(
        f"the class Restyled in place of this model's own; it is steered as {FAMILIES[key].family}" in warning
        for warning in run.trace["warnings"]
    )


@KEYS
def test_what_a_swap_left_behind_is_no_concern_of_later_graphs(server, key):
    server.client.free()
    before = sample(server, key, steer(server, key)).latent
    for derived in (True, False):
        sample(server, key, patch("SafetySteeringDev_SwapClass", derived=derived))
        after = sample(server, key, steer(server, key))
        texts = [text for shown in after.run.outputs.values() for text in shown.get("text", ())]
        assert any("An earlier run has left its own __class__ on this model" in text for text in texts)
        assert after.trace["status"] == "acted"
        assert not any("Restyled" in warning or "Rewritten" in warning for warning in after.trace["warnings"])
        assert torch.equal(after.latent, before)


@KEYS
def test_a_first_graph_with_a_swap_does_not_spoil_the_next_one(server, key):
    alone = sample(server, key, steer(server, key)).latent
    server.client.free()
    sample(server, key, patch("SafetySteeringDev_SwapClass", derived=False))
    assert torch.equal(sample(server, key, steer(server, key)).latent, alone)


@KEYS
def test_a_class_that_is_not_derived_is_steered_at_conditioning_and_named_at_blocks(server, key):
    swap = patch("SafetySteeringDev_SwapClass", derived=False)
    bit_equal_in_both_orders(server, key, swap, hook_points="conditioning")
    for steps in ((swap, steer(server, key)), (steer(server, key), swap)):
        with pytest.raises(RuntimeError, match="has put the class Rewritten in place of this model's own"):
            sample(server, key, chain(*steps))


@KEYS
def test_a_class_that_was_swapped_for_good_is_steered(server, key):
    for derived, settings in ((True, {}), (False, {"hook_points": "conditioning"})):
        alone = sample(server, key, steer(server, key, **settings)).latent
        server.client.free()
        swap = patch("SafetySteeringDev_SwapClass", derived=derived, for_good=True)
        run = sample(server, key, chain(swap, steer(server, key, **settings)))
        assert torch.equal(run.latent, alone)
        assert any("the class Re" in warning for warning in run.trace["warnings"])
    server.client.free()


@POINTS
@pytest.mark.parametrize("style", ["plain", "with parts", "hidden", "twice"])
@KEYS
def test_a_wrapped_model_is_steered(server, key, style, hook_points):
    wrap = patch("SafetySteeringDev_WrapModel", style=style)
    bit_equal_in_both_orders(server, key, wrap, hook_points=hook_points)


def test_a_model_that_was_wrapped_for_good_and_again_is_steered(server):
    alone = sample(server, "wan", steer(server, "wan")).latent
    wrap = patch("SafetySteeringDev_WrapModel", for_good=True)
    for style in (wrap, chain(wrap, wrap), None):  # each run wraps the shared model once more
        run = sample(server, "wan", chain(style, steer(server, "wan")) if style else steer(server, "wan"))
        assert run.trace["status"] == "acted"
        assert torch.equal(run.latent, alone)
    server.client.free()


@POINTS
@pytest.mark.parametrize("key", LISTS)
def test_a_replaced_list_that_still_runs_the_blocks_is_steered(server, key, hook_points):
    wrap = patch("SafetySteeringDev_WrapBlocks", blocks=LISTS[key])
    run = bit_equal_in_both_orders(server, key, wrap, hook_points=hook_points)
    assert any(f"another list {LISTS[key]}" in warning for warning in run.trace["warnings"])
    assert sample(server, key, steer(server, key)).trace["warnings"] == []
