"""Contract line 7: a known direction moves exactly the editable tokens, and all others stay bit-equal.

In this process, on the stock loaders' models, through a sampler. What went in and out of the edit is seen by two
observers that know nothing of the pack: a hook on the steered block, registered before the pack's own, and one on the
input of the module that follows. Which tokens are editable is written down here by hand.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from exact_moves import check_moved
from steered_graphs import FAMILIES
from tiny.models import TINY_MODELS
from tiny.vectors import random_vector

STRENGTH, GAP = 2.0, 4.0
WORDS = "a fox in the snow"  # five words and an end of text: six rows of states
FRAME = 16  # tokens of one latent frame in all cases
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@dataclass(frozen=True)
class Case:
    """A hook point of a model in a task. moved: the tokens of the sequence that may move, of `tokens` in all.

    after: the module that receives the stream next, as an attribute path; argument: under which name or at which place.
    """

    model: str
    task: str
    hook_point: str
    after: str
    argument: int | str
    tokens: int
    moved: range
    extras: dict[str, Any] = field(default_factory=dict)


VIDEO = range(3 * FRAME)
CASES = {
    "wan": Case("wan21_t2v", "wan", "block.blocks.1.image", "blocks.2", 0, 48, VIDEO),
    "wan text": Case("wan21_t2v", "wan", "conditioning", "text_embedding", 0, 512, range(6)),
    "wan_i2v": Case("wan21_i2v", "wan_i2v", "block.blocks.1.image", "blocks.2", 0, 48, VIDEO),
    "wan_i2v text": Case("wan21_i2v", "wan_i2v", "conditioning", "text_embedding", 0, 512, range(6)),
    "wan22": Case("wan22_ti2v", "wan22", "block.blocks.1.image", "blocks.2", 0, 48, VIDEO),
    "wan22_i2v": Case("wan22_ti2v", "wan22_i2v", "block.blocks.1.image", "blocks.2", 0, 48, VIDEO[FRAME:]),
    "wan22 last block": Case("wan22_ti2v", "wan22_i2v", "block.blocks.3.image", "head", 0, 48, VIDEO[FRAME:]),
    "ltxv": Case("ltxv", "ltxv", "block.transformer_blocks.1.image", "transformer_blocks.2", 0, 48, VIDEO),
    "ltxv text": Case("ltxv", "ltxv", "conditioning", "caption_projection", 0, 128, range(6)),
    "ltxv_i2v": Case(
        "ltxv", "ltxv_i2v", "block.transformer_blocks.1.image", "transformer_blocks.2", 0, 48, VIDEO[FRAME:]
    ),
    "ltxv_guide": Case("ltxv", "ltxv_guide", "block.transformer_blocks.1.image", "transformer_blocks.2", 0, 64, VIDEO),
    "ltxv_sparse_guide": Case(
        "ltxv", "ltxv_sparse_guide", "block.transformer_blocks.1.image", "transformer_blocks.2", 0, 52, VIDEO
    ),
    "flux double image": Case("flux", "flux", "block.double_blocks.0.image", "double_blocks.1", "img", 16, range(16)),
    "flux double text": Case("flux", "flux", "block.double_blocks.0.text", "double_blocks.1", "txt", 256, range(256)),
    "flux joined image": Case(
        "flux", "flux", "block.single_blocks.0.image", "single_blocks.1", 0, 272, range(256, 272)
    ),
    "flux joined text": Case("flux", "flux", "block.single_blocks.0.text", "single_blocks.1", 0, 272, range(256)),
    "flux text": Case("flux", "flux", "conditioning", "txt_in", 0, 256, range(256)),
    "flux reference": Case(
        "flux", "flux_reference", "block.double_blocks.0.image", "double_blocks.1", "img", 32, range(16)
    ),
    "flux joined reference": Case(
        "flux", "flux_reference", "block.single_blocks.0.image", "single_blocks.1", 0, 288, range(256, 272)
    ),
}


def task_inputs(task: str, batch: int) -> dict[str, Any]:
    """Positive and negative conditioning, latents and mask as the stock nodes of the task make them, without a VAE."""
    from comfy.clip_vision import Output
    from dev_nodes.start_frame import with_start_frame
    from dev_nodes.text_encode import conditioning

    family = FAMILIES[task.replace("_sparse", "").replace("_reference", "")].family
    positive, negative = (conditioning(text, 4096, 0, family) for text in (WORDS, "one two three four five"))
    generator = torch.Generator().manual_seed(5)
    shape = {"wan": (16, 3, 8, 8), "wan22": (48, 3, 8, 8), "ltxv": (128, 3, 4, 4), "flux": (16, 8, 8)}
    latent = {"samples": torch.zeros(batch, *shape[task.split("_")[0]])}
    extras: dict[str, Any] = {}
    if task in ("wan22_i2v", "ltxv_i2v"):
        latent = with_start_frame(latent)
    if task == "wan_i2v":
        vision = Output()
        vision.penultimate_hidden_states = torch.randn(1, 257, 1280, generator=generator)
        mask = torch.ones(1, 1, 3, 8, 8)
        mask[:, :, 0] = 0
        image = torch.randn(1, 16, 3, 8, 8, generator=generator)
        extras = {"concat_latent_image": image, "concat_mask": mask, "clip_vision_output": vision}
    if task == "flux_reference":
        extras = {"reference_latents": [torch.randn(1, 16, 8, 8, generator=generator)]}
    if "guide" in task:
        positive, negative, latent = with_guide(positive, negative, latent, generator, sparse="sparse" in task)
    for entries in (positive, negative):
        entries[0][1].update(extras)
    return {"positive": positive, "negative": negative, **latent}


def with_guide(positive: Any, negative: Any, latent: Any, generator: torch.Generator, *, sparse: bool) -> Any:
    """What LTXVAddGuide does with one guide frame; a sparse one fills every other row and column of the grid."""
    from comfy_extras.nodes_lt import LTXVAddGuide, _append_guide_attention_entry, get_noise_mask

    batch = latent["samples"].shape[0]
    size, factor = (2, 2) if sparse else (4, 1)
    frame = torch.randn(1, 128, 1, size, size, generator=generator).expand(batch, -1, -1, -1, -1)
    frame, mask = LTXVAddGuide.dilate_latent(frame, factor)
    positive, negative, samples, noise_mask = LTXVAddGuide.append_keyframe(
        positive, negative, 8, latent["samples"], get_noise_mask(latent), frame, 1.0, (8, 32, 32), guide_mask=mask,
        latent_downscale_factor=factor,
    )  # fmt: skip
    positive, negative = _append_guide_attention_entry(positive, negative, FRAME, [1, size, size])
    return positive, negative, {"samples": samples, "noise_mask": noise_mask}


class Observer:
    """Collects what leaves the steered place before the edit and what arrives behind it."""

    def __init__(self, diffusion_model: torch.nn.Module, case: Case) -> None:
        self.before: list[torch.Tensor] = []
        self.after: list[torch.Tensor] = []
        self._case = case
        diffusion_model.get_submodule(case.after).register_forward_pre_hook(self._arrives, with_kwargs=True)
        kind, *place = case.hook_point.split(".")
        if kind == "block":
            diffusion_model.get_submodule(".".join(place[:2])).register_forward_hook(self._leaves)
            self._item = 1 if place[2] == "text" else 0

    def _leaves(self, module: Any, inputs: Any, output: Any) -> None:
        self.before.append((output[self._item] if isinstance(output, tuple) else output).clone())

    def _arrives(self, module: Any, inputs: Any, named: Any) -> None:
        argument = self._case.argument
        self.after.append((inputs[argument] if isinstance(argument, int) else named[argument]).clone())


def observe(
    comfy_in_process: Any, case: Case, dtype: torch.dtype, strength: float, batch: int = 1, **settings: Any
) -> Any:
    """Sample two steps with the case's hook point steered along a known direction; returns (observer, direction)."""
    import comfy.sample
    from safety_steering_pack.bridge.models.model_map import block_space, read_shape, state_space
    from safety_steering_pack.bridge.steering.apply import apply_steering
    from safety_steering_pack.bridge.steering.settings import SteeringSettings
    from safety_steering_pack.safety_steering.hook_point import HookPoint
    from safety_steering_pack.safety_steering.steering.interventions import Intervention

    patcher = comfy_in_process.diffusion_model(TINY_MODELS[case.model].file_name, dtype=dtype)
    patcher.set_model_compute_dtype(dtype)
    shape = read_shape(patcher.model.diffusion_model)
    point = HookPoint(case.hook_point)
    if point.kind == "block":
        space, width = block_space(shape, point), shape.width
    else:
        space, width = state_space(shape.family, case.hook_point, 4096), 4096
    vector = random_vector(
        {case.hook_point: (space, width)}, family=shape.family.name, block_counts=shape.block_counts, gap=GAP
    )
    chosen = SteeringSettings(strength, (case.hook_point,), Intervention("add", "none"), window=(0, 1), **settings)
    observer = Observer(patcher.model.diffusion_model, case)
    inputs = task_inputs(case.task, batch)
    samples = inputs["samples"]
    with torch.inference_mode():
        comfy.sample.sample(
            apply_steering(patcher, vector, chosen),
            torch.randn(samples.shape, generator=torch.Generator().manual_seed(3)),
            steps=2,
            cfg=3.0,
            sampler_name="euler",
            scheduler="simple",
            positive=inputs["positive"],
            negative=inputs["negative"],
            latent_image=samples,
            noise_mask=inputs.get("noise_mask"),
            disable_pbar=True,
            seed=3,
        )
    return observer, vector.at(case.hook_point).categories["violence"].direction[0].double()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_7_a_known_direction_moves_exactly_the_editable_tokens(comfy_in_process, case, dtype):
    seen, direction = observe(comfy_in_process, case, dtype, STRENGTH)
    if case.hook_point == "conditioning":  # nothing stands before it: the same run unsteered shows what would arrive
        seen.before = observe(comfy_in_process, case, dtype, 0.0)[0].after
    assert len(seen.before) == len(seen.after) >= 2
    for before, after in zip(seen.before, seen.after, strict=True):
        assert after.dtype == dtype
        assert before.shape[1] == after.shape[1] == case.tokens
        check_moved(before, after, case.moved, STRENGTH * GAP * direction)


@pytest.mark.parametrize("name", ["wan", "wan text", "wan22_i2v", "ltxv_guide", "ltxv text", "flux joined image"])
@pytest.mark.parametrize("branch", ["positive", "negative"])
def test_7_only_the_rows_of_the_chosen_branch_move(comfy_in_process, name, branch):
    case = CASES[name]
    seen, direction = observe(comfy_in_process, case, torch.float32, STRENGTH, batch=3, branch=branch)
    if case.hook_point == "conditioning":
        seen.before = observe(comfy_in_process, case, torch.float32, 0.0, batch=3)[0].after
    untouched = 0
    for before, after in zip(seen.before, seen.after, strict=True):
        still = (before == after).flatten(1).all(dim=1)
        untouched += int(still.sum())
        check_moved(before[~still], after[~still], case.moved, STRENGTH * GAP * direction)
    assert untouched == sum(len(before) for before in seen.before) / 2
