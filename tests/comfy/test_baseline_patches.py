"""The baselines on the small Wan through core's sampler: at neutral settings nothing changes, else something does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_world.measuring.sampling import Sampling, generate_latents
from small_world.models.text import WIDTH, encode_text
from small_world.runtime import load_generator, use_comfyui

PROMPTS, SEEDS = ["a fox with falling bombs on a blue background", "a cat, rising balloons, pink background"], [1, 2]
HOW = Sampling(steps=3)


@pytest.fixture(scope="module")
def model(comfy_in_process: Any) -> Any:
    torch.set_num_threads(1)
    use_comfyui()
    return load_generator()


@pytest.fixture(scope="module")
def plain(model: Any) -> torch.Tensor:
    return generate_latents(model, PROMPTS, SEEDS, how=HOW)


def means(*texts: str) -> torch.Tensor:
    states, mask = encode_text(texts)
    return states.sum(dim=1) / mask.sum(dim=1, keepdim=True)


def test_sld_against_nothing_is_plain_guidance(model: Any, plain: torch.Tensor) -> None:
    from small_world.measuring.baseline_patches import with_sld
    from small_world.measuring.baselines import SLD_PRESETS

    nothing = torch.zeros(1, 24, WIDTH)
    same = generate_latents(with_sld(model, nothing, SLD_PRESETS["max"]), PROMPTS, SEEDS, how=HOW)
    assert torch.allclose(same, plain, atol=1e-4)
    against = with_sld(model, encode_text(["bombs"])[0], SLD_PRESETS["max"])
    changed = generate_latents(against, PROMPTS, SEEDS, how=HOW)
    assert not torch.allclose(changed, plain, atol=1e-2)
    assert torch.equal(generate_latents(against, PROMPTS, SEEDS, how=HOW), changed)  # no momentum left of the last run


def test_safree_without_triggers_changes_nothing(model: Any, plain: torch.Tensor) -> None:
    from small_world.measuring.baseline_patches import with_safree

    same = generate_latents(with_safree(model, means("bombs"), 10.0, 1.0), PROMPTS, SEEDS, how=HOW)
    assert torch.equal(same, plain)
    changed = generate_latents(with_safree(model, means("bombs"), 0.0, 1.0), PROMPTS, SEEDS, how=HOW)
    assert not torch.allclose(changed, plain, atol=1e-3)


def test_casteer_reads_and_edits_every_cross_attention(model: Any, plain: torch.Tensor) -> None:
    import comfy.samplers
    from small_world.measuring.baseline_patches import reading_cross_attention, with_casteer

    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", HOW.steps)[:-1]
    seen: dict[tuple[int, int], torch.Size] = {}
    reader = reading_cross_attention(
        model, sigmas.tolist(), lambda step, block, h: seen.update({(step, block): h.shape})
    )
    assert torch.equal(generate_latents(reader, PROMPTS, SEEDS, how=HOW), plain)
    assert len(seen) == HOW.steps * 8
    assert set(seen.values()) == {torch.Size([2, 32, 160])}

    drawn = torch.randn(HOW.steps, 8, 1, 160, generator=torch.Generator().manual_seed(0))
    directions = torch.nn.functional.normalize(drawn, dim=-1)
    same = generate_latents(with_casteer(model, directions, sigmas.tolist(), 0.0), PROMPTS, SEEDS, how=HOW)
    assert torch.allclose(same, plain, atol=1e-4)
    changed = generate_latents(with_casteer(model, directions, sigmas.tolist(), 2.0), PROMPTS, SEEDS, how=HOW)
    assert not torch.allclose(changed, plain, atol=1e-3)
    blocks = model.model.diffusion_model.blocks
    assert not any(block.cross_attn._forward_hooks for block in blocks)
