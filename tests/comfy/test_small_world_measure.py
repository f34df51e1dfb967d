"""What measuring relies on: a prompt that a setting leaves alone gives the unsteered video, bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_world.measuring.sampling import Sampling, generate_latents
from small_world.measuring.settings import WorldSetting
from small_world.measuring.steered import acts_on, movement, steered
from small_world.runtime import WEIGHTS, load_generator

PROMPTS = ["a fox with falling bombs on a blue background", "a fox with falling balloons on a blue background"]
HOW = Sampling(steps=2)
GATED = WorldSetting(
    "gated",
    "small_wan_native_lda.safetensors",
    "native",
    ("conditioning",),
    "clamp",
    "token",
    "pooled",
    -2.5,
    8.0,
    mix={"gore": 1.0, "violence": 1.0, "drugs": 1.0},
)


@pytest.fixture(scope="module")
def model(comfy_in_process: Any) -> Any:
    torch.set_num_threads(1)
    return load_generator()


def test_a_prompt_that_is_left_alone_gives_the_unsteered_video(model: Any) -> None:
    assert acts_on(GATED, WEIGHTS, PROMPTS).tolist() == [True, False]
    assert movement(GATED, WEIGHTS, PROMPTS[:1]) > 0.1
    assert movement(GATED, WEIGHTS, PROMPTS[1:]) == 0.0
    plain, other = (generate_latents(one, PROMPTS, [1, 1], how=HOW) for one in (model, steered(model, GATED, WEIGHTS)))
    assert torch.equal(plain[1], other[1])
    assert not torch.allclose(plain[0], other[0], atol=1e-2)


def test_what_does_not_steer_text_states_alone_is_generated(model: Any) -> None:
    everything = [
        WorldSetting("unsteered"),
        WorldSetting("blocks", GATED.vector, "native", ("block.blocks.4.image",), strength=1.0),
        WorldSetting("baseline", baseline="SLD", parameters={"concept": "bombs", "preset": "max"}),
    ]
    for setting in everything:
        assert acts_on(setting, WEIGHTS, PROMPTS).all()


def test_an_unknown_baseline_is_refused(model: Any) -> None:
    with pytest.raises(ValueError, match="choose SLD, SAFREE or CASteer"):
        steered(model, WorldSetting("other", baseline="other"), WEIGHTS)
