"""Capture against an independent hook, through ComfyUI's own sampling."""

from __future__ import annotations

import pytest
import torch
from steered_graphs import FAMILIES
from tiny.models import TINY_MODELS


@pytest.mark.parametrize("kind", ["wan21_t2v", "ltxv", "flux"])
def test_a_capture_is_the_mean_over_the_editable_tokens(comfy_in_process, kind):
    import comfy.sample
    import comfy.samplers
    from safety_steering_pack.bridge.capture.collect import Capture, capture_source
    from safety_steering_pack.bridge.capture.kept_tokens import STREAM_TOKENS
    from safety_steering_pack.bridge.models.model_map import find_block
    from safety_steering_pack.safety_steering.hook_point import HookPoint

    family = FAMILIES["wan" if kind.startswith("wan") else kind]
    patcher = comfy_in_process.diffusion_model(TINY_MODELS[kind].file_name)
    sigmas = comfy.samplers.calculate_sigmas(patcher.model.model_sampling, "simple", 4).tolist()
    edges = (0.0, (sigmas[1] + sigmas[2]) / 2, 1.0)
    capture = Capture(capture_source(patcher, (HookPoint(family.block), HookPoint("conditioning")), edges, 4096))
    capture.token_fractions = (0.0, 0.99)
    capture.token_pairs = ("one pair", "one pair")

    seen = []
    block = find_block(patcher.model.diffusion_model, HookPoint(family.block))

    def watch(module, inputs, output):
        seen.append((output[0] if isinstance(output, tuple) else output).double().clone())

    handle = block.register_forward_hook(watch)
    shapes = {"wan21_t2v": (2, 16, 3, 8, 8), "ltxv": (2, 128, 3, 4, 4), "flux": (2, 16, 8, 8)}
    text = torch.randn(2, 12, 4096, generator=torch.Generator().manual_seed(1))
    text[:, 7:] = 0  # padding, as umT5 leaves it
    extra = {"attention_mask": (text != 0).any(-1).long()} if kind == "ltxv" else {"pooled_output": torch.zeros(2, 768)}
    negative = [[torch.randn(1, 12, 4096), {key: value[:1] for key, value in extra.items()}]]
    latent = torch.zeros(shapes[kind])
    noise = comfy.sample.prepare_noise(latent, 1)
    try:
        comfy.sample.sample(
            capture.attach(patcher), noise, 4, 3.0, "euler", "simple", [[text, extra]], negative, latent, seed=1
        )
    finally:
        handle.remove()

    # core runs [negative, positive] in one batch; the first steps are the noisy ones, bin 1
    positive = torch.stack([h[-2:] for h in seen])
    states = capture.states[family.block]
    assert states.pooled.shape == (2, 2, family.width)
    means = positive.mean(dim=2)
    for k, steps in ((1, [0, 1]), (0, [2, 3])):
        torch.testing.assert_close(states.pooled[:, k].double(), means[steps].mean(0), rtol=1e-5, atol=1e-6)
        last = positive[steps[-1]]
        torch.testing.assert_close(states.token[0, k].double(), last[0, 0], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(states.token[1, k].double(), last[1, -1], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(capture.states["conditioning"].pooled[:, 1], text[:, :7].mean(dim=1))

    # a few places of the stream, the same for both samples; every token of the text
    count = positive.shape[2]
    assert states.tokens.shape == (2, 2, min(count, STREAM_TOKENS), family.width)
    for k, steps in ((1, [0, 1]), (0, [2, 3])):
        mean = positive[steps].mean(dim=0).bfloat16()
        places = [
            [bool((mean[row, i] == one).all()) for i in range(count)] for row in (0, 1) for one in states.tokens[row, k]
        ]
        assert all(sum(found) == 1 for found in places)
        assert places[: len(places) // 2] == places[len(places) // 2 :]
    assert torch.equal(capture.states["conditioning"].tokens[:, 1], text[:, :7].bfloat16())


def test_the_kept_places_are_drawn_by_the_pair_from_equal_parts(comfy_in_process):
    from safety_steering_pack.bridge.capture.kept_tokens import STREAM_TOKENS, TEXT_TOKENS, kept_tokens
    from safety_steering_pack.safety_steering.hook_point import HookPoint

    stream, text, cpu = HookPoint("block.blocks.0.image"), HookPoint("conditioning"), torch.device("cpu")
    count = 10 * STREAM_TOKENS
    places, real = kept_tokens(stream, ("a", "a", "b"), count, None, cpu)
    assert real.all()
    assert torch.equal(places[0], places[1])
    assert not torch.equal(places[0], places[2])
    assert (places // 10).tolist() == [list(range(STREAM_TOKENS))] * 3

    # only tokens under the mask, every second one here; fewer than could be kept are all kept
    mask = torch.zeros(1, count, 1, dtype=torch.bool)
    mask[:, 1::2] = True
    places, real = kept_tokens(stream, ("a",), count, mask, cpu)
    assert (places % 2 == 1).all()
    assert len(places.unique()) == STREAM_TOKENS
    mask[:, 10:] = False
    places, real = kept_tokens(stream, ("a",), count, mask, cpu)
    assert places[real].tolist() == [1, 3, 5, 7, 9]

    # of a text the first ones, wherever padding puts them
    left = torch.arange(200)[None, :, None] >= 190
    places, real = kept_tokens(text, ("a",), 200, left, cpu)
    assert places[real].tolist() == list(range(190, 200))
    places, real = kept_tokens(text, ("a",), 200, None, cpu)
    assert places.tolist() == [list(range(TEXT_TOKENS))]
