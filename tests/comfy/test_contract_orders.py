"""Contract line 4: what stands before Apply Safety Steering may as well stand after it, and stacked Applies.

Every row of the table is a stock node. Both orders must give the same bits, steered, with the same trace.
"""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from steered_graphs import (
    FAMILIES,
    apply_vector,
    chain,
    patch,
    plain,
    put_vector,
    random_file,
    sample,
    sampler_of,
    steer,
)
from tiny.models import TINY_MODELS

# a linear layer of each family's second block: the tiny LoRA changes it
LORA_LAYERS = {
    "wan": ("blocks.1.ffn.0", 32, 64),
    "wan_i2v": ("blocks.1.ffn.0", 32, 64),
    "wan22": ("blocks.1.ffn.0", 32, 64),
    "wan22_i2v": ("blocks.1.ffn.0", 32, 64),
    "ltxv": ("transformer_blocks.1.ff.net.0.proj", 32, 128),
    "ltxv_i2v": ("transformer_blocks.1.ff.net.0.proj", 32, 128),
    "ltxv_guide": ("transformer_blocks.1.ff.net.0.proj", 32, 128),
    "flux": ("double_blocks.0.img_mlp.0", 128, 512),
}
SHIFTS = {
    "wan": patch("ModelSamplingSD3", shift=12.0),
    "wan_i2v": patch("ModelSamplingSD3", shift=12.0),
    "wan22": patch("ModelSamplingSD3", shift=12.0),
    "wan22_i2v": patch("ModelSamplingSD3", shift=12.0),
    "ltxv": patch("ModelSamplingLTXV", max_shift=4.0, base_shift=2.0),
    "ltxv_i2v": patch("ModelSamplingLTXV", max_shift=4.0, base_shift=2.0),
    "ltxv_guide": patch("ModelSamplingLTXV", max_shift=4.0, base_shift=2.0),
    "flux": patch("ModelSamplingFlux", max_shift=3.0, base_shift=1.0, width=64, height=64),
}
KEYS = pytest.mark.parametrize("key", LORA_LAYERS)
CACHING = {"reuse_threshold": 3.0, "start_percent": 0.2, "end_percent": 1.0, "verbose": False}


def lora(server, key):
    """A node that puts a tiny LoRA on the model; its file is written at first use."""
    layer, inputs, outputs = LORA_LAYERS[key]
    generator = torch.Generator().manual_seed(1)
    tensors = {
        f"diffusion_model.{layer}.lora_down.weight": torch.randn(2, inputs, generator=generator),
        f"diffusion_model.{layer}.lora_up.weight": torch.randn(outputs, 2, generator=generator),
        f"diffusion_model.{layer}.alpha": torch.tensor(2.0),
    }
    folder = server.models / "loras"
    folder.mkdir(exist_ok=True)
    if not (folder / f"{key}.safetensors").exists():
        save_file(tensors, folder / f"{key}.safetensors")
    return patch("LoraLoaderModelOnly", lora_name=f"{key}.safetensors", strength_model=0.3)


def in_both_orders(server, key, other, steering, **options):
    """The run with `other` before the steering; checked against the one after it, and against either of them alone."""
    options = sampler_of(key) | options
    before, after = (sample(server, key, chain(*steps), **options) for steps in [(other, steering), (steering, other)])
    assert torch.equal(before.latent, after.latent)
    assert before.calls == after.calls
    assert before.trace["status"] == "acted"
    assert not torch.equal(before.latent, plain(server, key, **options))
    for alone in (other, steering):
        assert not torch.equal(before.latent, sample(server, key, alone, **options).latent)
    return before


@KEYS
def test_4_lora(server, key):
    in_both_orders(server, key, lora(server, key), steer(server, key, hook_points="all"))


@KEYS
def test_4_a_shift_moves_the_window_in_either_order(server, key):
    # the window is a range of denoising: under another shift it covers other steps
    steering = steer(server, key, window_start=0.2, window_end=0.5)
    shifted = in_both_orders(server, key, SHIFTS[key], steering, steps=6)
    assert any(call["note"] == "outside the window" for call in shifted.calls)


@pytest.mark.parametrize("hook_points", ["auto", "conditioning"])
@KEYS
def test_4_easycache_answers_are_no_misses(server, key, hook_points):
    cached = in_both_orders(
        server, key, patch("EasyCache", CACHING), steer(server, key, hook_points=hook_points), steps=6
    )
    notes = [call["note"] for call in cached.calls]
    assert "answered by a cache" in notes
    assert all(bool(call["hooks"]) != (call["note"] == "answered by a cache") for call in cached.calls)
    assert cached.trace["summary"].count("of 6 steps") > 0


@KEYS
def test_4_lazycache_skips_whole_calls(server, key):
    cached = in_both_orders(server, key, patch("LazyCache", CACHING), steer(server, key), steps=6)
    assert 0 < len(cached.calls) < 6
    assert all(call["hooks"] for call in cached.calls)


@pytest.mark.parametrize("node", ["SkipLayerGuidanceDiT", "SkipLayerGuidanceDiTSimple"])
@pytest.mark.parametrize("key", ["wan", "wan_i2v", "wan22", "wan22_i2v", "ltxv", "ltxv_i2v", "flux"])
def test_4_skip_layer_guidance_on_the_target_block(server, key, node):
    layers = {"double_layers": FAMILIES[key].block.split(".")[2], "single_layers": ""}
    if node == "SkipLayerGuidanceDiT":
        layers |= {"scale": 3.0, "rescaling_scale": 0.0}
    skipping = patch(node, layers, start_percent=0.0, end_percent=1.0)
    skipped = in_both_orders(server, key, skipping, steer(server, key), cfg=3.0)
    notes = [call["note"] for call in skipped.calls]
    assert "block replaced by another node" in notes
    assert "" in notes
    assert "another node replaced a steered block" in skipped.trace["warnings"][0]


def test_4_all_of_them_at_once(server):
    nodes = [lora(server, "wan"), SHIFTS["wan"], patch("EasyCache", CACHING)]
    steering = steer(server, "wan", hook_points="all", window_end=0.7)
    first = sample(server, "wan", chain(steering, *nodes), steps=6)
    middle = sample(server, "wan", chain(nodes[0], steering, *nodes[1:]), steps=6)
    last = sample(server, "wan", chain(*nodes, steering), steps=6)
    assert torch.equal(first.latent, middle.latent)
    assert torch.equal(first.latent, last.latent)


@pytest.mark.parametrize("key", ["wan", "ltxv", "flux"])
def test_4_the_weight_fingerprint_does_not_see_loras(server, comfy_in_process, key):
    from safety_steering_pack.bridge.models.fingerprints import fingerprint

    kind = {"wan": "wan21_t2v"}.get(key, key)
    true = fingerprint(comfy_in_process.diffusion_model(TINY_MODELS[kind].file_name))
    fitted = apply_vector(
        put_vector(server, f"{key}_fitted", FAMILIES[key].vector().with_info(weight_fingerprint=true))
    )
    merged = apply_vector(
        put_vector(server, f"{key}_merged", FAMILIES[key].vector().with_info(weight_fingerprint="0" * 16))
    )
    changing = lora(server, key)
    # the LoRA is in the loaded weights when the later ones of these are built
    for steps in [(fitted,), (changing, fitted), (fitted, changing), (changing, fitted), (fitted,)]:
        assert sample(server, key, chain(*steps)).trace["warnings"] == []
    (warning,) = sample(server, key, merged).trace["warnings"]
    assert "other weights" in warning


# Two Applies: what commutes, and what does not, is told in docs/contract.md


def two_orders(server, key, one, other):
    return (sample(server, key, chain(*steps)).latent for steps in [(one, other), (other, one)])


def second_vector(server, key, **settings):
    return apply_vector(random_file(server, key, seed=1), **settings)


@pytest.mark.parametrize("key", ["wan", "ltxv_guide", "flux"])
def test_4_stacked_applies_at_different_blocks_commute_exactly(server, key):
    name, index = FAMILIES[key].block.split(".")[1:3]
    one = steer(server, key)
    other = second_vector(server, key, hook_points=f"block.{name}.{int(index) - 1}.image", intervention="ablate")
    first, second = two_orders(server, key, one, other)
    assert torch.equal(first, second)
    assert not torch.equal(first, sample(server, key, one).latent)


@pytest.mark.parametrize("key", ["wan", "ltxv_guide", "flux"])
def test_4_stacked_adds_without_norm_commute_to_rounding(server, key):
    applies = [make(server, key, norm="none") for make in (steer, second_vector)]
    first, second = two_orders(server, key, *applies)
    scale = (first - plain(server, key)).abs().max()
    assert scale > 1e-2
    torch.testing.assert_close(first, second, rtol=0, atol=float(scale) * 1e-4)


@pytest.mark.parametrize(
    "settings", [{"norm": "token"}, {"intervention": "ablate", "norm": "none"}, {"gate": "token", "norm": "none"}]
)
def test_4_stacked_applies_that_read_what_they_change_do_not_commute(server, settings):
    if "gate" in settings:
        settings = settings | {"gate.threshold": 0.0}
    first, second = two_orders(server, "wan", *(make(server, "wan", **settings) for make in (steer, second_vector)))
    assert (first - second).abs().max() > 1e-3
