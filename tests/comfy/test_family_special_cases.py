"""What is special about single video families and about what other nodes do to them: one test each.

What the table of `family_cases` shows as a row of its own (prefixes, suffixes, start frames) and what the contract's
tests show (context windows, sparse guides, Dual Model guiders) is not repeated here.
"""

from __future__ import annotations

import ast
from dataclasses import replace
from typing import Any

import pytest
import torch
from comfy_tree import COMFYUI_VERSION, tree_version
from exact_moves import check_moved
from family_cases import CASES
from family_cases.case import Tokens
from family_cases.harness import GAP, STRENGTH, Family, check_blocks, watched
from family_cases.runs import run
from family_cases.video import LATENT, with_latents, with_vision
from tiny.models import WAN_SIZES
from tiny.vectors import random_vector

pytestmark = pytest.mark.usefixtures("comfy_in_process")


def altered(name: str, **changes: Any) -> Family:
    """A case with some of it changed, its model built."""
    return Family(replace(CASES[name], **changes))


def last_trace(patcher: Any) -> Any:
    from safety_steering_pack.bridge.steering.apply import steerings_of

    return steerings_of(patcher)[-1].traces[-1]


# LTX-2: two streams, two spaces in one argument


def test_ltx2_each_space_of_the_prompt_states_moves_its_own_channels():
    family = Family(CASES["ltx2"])
    vectors = {
        part: random_vector({"conditioning": (f"ltx2.connector.{part}64", 64)}, gap=GAP, seed=seed)
        for seed, part in enumerate(("video", "audio"))
    }
    with watched(family) as (_, plain):
        run(family.case, family.patcher)
    for part, channels in (("video", slice(0, 64)), ("audio", slice(64, 128))):
        with watched(family) as (_, calls):
            run(family.case, family.steered(("conditioning",), vector=vectors[part]))
        before, after = plain[0]["context"], calls[0]["context"]
        shift = STRENGTH * GAP * vectors[part].at("conditioning").categories["violence"].direction[0].double()
        check_moved(before[..., channels], after[..., channels], range(8), shift)
        still = torch.ones(128, dtype=torch.bool)
        still[channels] = False
        assert torch.equal(before[..., still], after[..., still])


def test_ltx2_without_sound_has_nothing_to_edit_in_the_sound():
    family = altered("ltx2", latent=(1, 128, 3, 4, 4))
    image, sound = "block.transformer_blocks.1.image", "block.transformer_blocks.1.audio"
    steered = family.steered((image, sound))
    run(family.case, steered)
    assert [hook.hook_point for call in last_trace(steered).calls for hook in call.hooks] == [image]


def test_ltx2_without_sound_has_nothing_to_edit_where_the_sound_would_read():
    """Core does not call that module then, which is no miss."""
    family = altered("ltx2", latent=(1, 128, 3, 4, 4))
    image, sound = "cross_attention.transformer_blocks.1.image", "cross_attention.transformer_blocks.1.audio"
    both, alone = family.steered((image, sound)), family.steered((sound,))
    run(family.case, both)
    run(family.case, alone)
    assert [hook.hook_point for call in last_trace(both).calls for hook in call.hooks] == [image]
    assert (last_trace(both).status, last_trace(alone).status) == ("acted", "nothing to edit")


# Wan


def test_a_vace_skip_is_added_to_the_steered_tokens():
    family = Family(CASES["wan-vace"])
    arrived, skips = [], []
    blocks, vace = family.model.blocks, family.model.vace_blocks
    handles = [
        blocks[1].register_forward_pre_hook(lambda m, inputs: arrived.append(inputs[0].clone())),
        vace[0].register_forward_hook(lambda m, i, output: skips.append(output[0].clone())),
    ]
    with watched(family) as (seen, _):
        run(family.case, family.steered(("block.blocks.0.image",)))
    for handle in handles:
        handle.remove()
    assert len(arrived) == len(skips) == len(seen[blocks[0]]) > 0
    for (before, after), skip, x in zip(seen[blocks[0]], skips, arrived, strict=True):
        assert not torch.equal(before, after)
        assert torch.equal(x, after + skip)


def test_two_vace_controls_run_every_vace_block_twice_and_both_are_steered():
    two = {"vace_frames": [torch.randn(1, 32, 3, 8, 8), torch.randn(1, 32, 3, 8, 8)], "vace_strength": [1.0, 0.5]}
    check_blocks(
        altered(
            "wan-vace",
            extras=lambda generator: {**two, "vace_mask": [torch.ones(1, 64, 3, 8, 8)] * 2},
            hits={"vace_blocks": 2},
        )
    )


def test_a_depth_counts_only_the_blocks_of_the_video():
    from safety_steering_pack.safety_steering.hook_point import select_hook_points

    family = Family(CASES["wan-vace"])
    for text, block in (("0.0", 0), ("0.34", 1), ("1.0", 3)):
        chosen = select_hook_points(text, family.points, family.shape.block_counts)
        assert chosen == (f"block.blocks.{block}.image",)


def test_s2v_reference_and_motion_tokens_stay():
    family = altered(
        "wan-s2v",
        # 16 tokens of reference, then motion frames packed into 16 + 4 + 4
        extras=with_latents(
            audio_embed=(1, 25, 1024, 12), reference_latents=[(1, 16, 1, 8, 8)], reference_motion=(1, 16, 19, 8, 8)
        ),
        tokens={"blocks.image": Tokens(48 + 16 + 24, range(48))},
    )
    check_blocks(family)


def test_wan_image_states_can_be_steered_at_clip_vision():
    family = altered("wan-i2v", extras=with_vision(concat_latent_image=LATENT))
    vector = random_vector({"clip_vision": ("clip-vision-h.penultimate", 1280)}, gap=GAP)
    with watched(family) as (_, plain):
        run(family.case, family.patcher)
    with watched(family) as (_, calls):
        run(family.case, family.steered(("clip_vision",), vector=vector))
    shift = STRENGTH * GAP * vector.at("clip_vision").categories["violence"].direction[0].double()
    for before, after in zip(plain, calls, strict=True):
        check_moved(before["clip_fea"], after["clip_fea"], range(257), shift)
        assert torch.equal(before["context"], after["context"])


@pytest.mark.parametrize(
    ("name", "extras", "why"),
    [
        ("wan-i2v", with_latents(concat_latent_image=LATENT), "was called without the states"),
        ("wan", with_vision(), "does not read the states"),
    ],
)
def test_image_states_that_are_not_read_are_not_passed_off_as_steered(name, extras, why):
    from safety_steering_pack.safety_steering.errors import NotSteeredError

    family = altered(name, extras=extras)
    vector = random_vector({"clip_vision": ("clip-vision-h.penultimate", 1280)})
    with pytest.raises(NotSteeredError, match=f"{why} of 'clip_vision'"):
        run(family.case, family.steered(("clip_vision",), vector=vector))


def frame_by_frame(family: Family, patcher: Any, point: str) -> list[tuple[float, bool]]:
    """Core's sampler for causal models over three frames; noise level of each call, and whether `point` was edited."""
    import comfy.sample
    import comfy.samplers
    from safety_steering_pack.bridge.models.model_map import find_block
    from safety_steering_pack.safety_steering.hook_point import HookPoint

    latent = family.case.latents()
    with watched(family) as (seen, _), torch.inference_mode():
        comfy.sample.sample_custom(
            patcher,
            comfy.sample.prepare_noise(latent, 7),
            1.0,
            comfy.samplers.ksampler("ar_video", {"num_frame_per_block": 1}),
            torch.tensor([1.0, 0.9, 0.3, 0.0]),
            family.case.entry(1),
            family.case.entry(2),
            latent,
            disable_pbar=True,
            seed=7,
        )
    edited = [not torch.equal(before, after) for before, after in seen[find_block(family.model, HookPoint(point))]]
    return list(zip([call.sigma for call in last_trace(patcher).calls], edited, strict=True))


def causal(
    window: tuple[float, float], prepare: Any = lambda patcher: patcher, kind: str = "block"
) -> list[tuple[float, bool]]:
    from safety_steering_pack.bridge.steering.apply import apply_steering
    from safety_steering_pack.bridge.steering.settings import SteeringSettings

    family = Family(CASES["wan-ar"])
    point = f"{kind}.blocks.1.image"
    settings = SteeringSettings(STRENGTH, (point,), window=window)
    return frame_by_frame(family, apply_steering(prepare(family.patcher), family.vector, settings), point)


@pytest.mark.parametrize("kind", ["block", "cross_attention"])  # the text's keys are computed in the first call alone
def test_causal_wan_is_steered_where_it_keeps_a_frame_for_later_ones(kind):
    # at shift 5 the first half of denoising ends at sigma 0.83; the pass at 0 fills what later frames look back on
    a_frame = [(1.0, True), (pytest.approx(0.9), True), (pytest.approx(0.3), False), (0.0, True)]
    assert causal(window=(0, 0.5), kind=kind) == 3 * a_frame


def test_causal_wan_leaves_the_start_frame_alone():
    def shown(patcher: Any) -> Any:
        started = patcher.clone()
        options = started.model_options.setdefault("transformer_options", {})
        options["ar_config"] = {"initial_latent": torch.randn(1, 16, 1, 8, 8)}
        return started

    calls = causal(window=(0, 1), prepare=shown)
    assert calls[0] == (0.0, False)
    assert len(calls) == 1 + 2 * 4
    assert all(edited for _, edited in calls[1:])


# Hook points with strengths of their own


def test_each_hook_point_has_the_strength_that_is_set_for_it():
    from safety_steering_pack.bridge.steering.apply import apply_steering
    from safety_steering_pack.bridge.steering.settings import SteeringSettings
    from safety_steering_pack.safety_steering.steering.interventions import Intervention

    family = Family(CASES["wan"])
    point, at_default, skipped = "conditioning", "block.blocks.0.image", "block.blocks.1.image"
    settings = SteeringSettings(
        STRENGTH,
        (point, at_default, skipped),
        Intervention("add", "none"),
        window=(0, 1),
        strengths={point: 0.5, skipped: 0.0},
    )
    patcher = apply_steering(family.patcher, family.vector, settings)
    with watched(family) as (seen, _):
        run(family.case, patcher)
    moved = {hook.hook_point: hook.shift_gaps["violence"] for hook in last_trace(patcher).calls[0].hooks}
    assert moved == {point: pytest.approx(0.5, rel=1e-3), at_default: pytest.approx(STRENGTH, rel=1e-3)}
    assert all(torch.equal(before, after) for before, after in seen[family.model.blocks[1]])
    off = replace(settings, strengths=dict.fromkeys((point, at_default, skipped), 0.0))
    assert torch.equal(
        run(family.case, apply_steering(family.patcher, family.vector, off)), run(family.case, family.patcher)
    )


# What other nodes and packs do


def lora_hook(strength: float) -> Any:
    """What Create Hook LoRA makes of a LoRA for the first block's queries."""
    import comfy.hooks

    generator = torch.Generator().manual_seed(1)
    low, high = torch.randn(2, 32, generator=generator), torch.randn(32, 2, generator=generator)
    name = "diffusion_model.blocks.0.self_attn.q"
    return comfy.hooks.create_hook_lora({f"{name}.lora_A.weight": low, f"{name}.lora_B.weight": high}, strength, 0.0)


def test_prompts_with_hooks_of_their_own_are_steered_in_calls_of_their_own():
    # positive and negative carry different LoRAs, so core runs them one after the other and patches weights in between
    family = altered("wan", extras=lambda generator: {"hooks": lora_hook(1.0 + generator.initial_seed())})
    with watched(family) as (_, calls):
        hooked = run(family.case, family.patcher)
    assert len(calls) == 2
    assert not torch.equal(hooked, run(CASES["wan"], family.patcher)), "the LoRA must matter"
    check_blocks(family)


def test_layers_that_unpack_their_weights_on_the_fly_are_steered():
    """As the loaders of GGUF files do: weights in 8 bits with a scale a row, unpacked for each call."""
    import comfy.ops
    import comfy.sd
    from tiny.models import TINY_MODELS, values

    class PackedOps(comfy.ops.manual_cast):
        class Linear(comfy.ops.manual_cast.Linear):
            def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
                weight = state_dict[prefix + "weight"]
                self.scale = weight.abs().amax(dim=1, keepdim=True) / 127
                self.weight = torch.nn.Parameter((weight / self.scale).round().to(torch.int8), requires_grad=False)
                self.bias = torch.nn.Parameter(state_dict[prefix + "bias"], requires_grad=False)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                weight = self.weight.to(x.dtype) * self.scale.to(x.dtype)
                return torch.nn.functional.linear(x, weight, self.bias.to(x.dtype))

    def build(dtype: torch.dtype) -> Any:
        import json

        tensors = {name: values(name, meta.shape, 0) for name, meta in TINY_MODELS["wan21_t2v"].shapes().items()}
        return comfy.sd.load_diffusion_model_state_dict(
            tensors,
            model_options={"custom_operations": PackedOps},
            metadata={"config": json.dumps({"transformer": WAN_SIZES})},
        )

    family = altered("wan", build=build)
    assert family.model.blocks[0].self_attn.q.weight.dtype == torch.int8
    check_blocks(family)


# Models without a row


def renamed(name: str, class_name: str) -> Family:
    """A case's model as a class of ComfyUI that the map does not know."""
    former = CASES[name].build

    def build(dtype: torch.dtype) -> Any:
        patcher = former(dtype)
        model = patcher.model.diffusion_model
        model.__class__ = type(class_name, (type(model),), {"__module__": "comfy.ldm.next_year"})
        return patcher

    return altered(name, build=build)


def test_an_unlisted_model_of_the_generic_shape_is_steered_and_called_untested():
    family = renamed("wan", "WanOfNextYear")
    check_blocks(family)
    steered = family.steered((family.points[0],))
    run(family.case, steered)
    trace = last_trace(steered)
    assert family.shape.name == "untested.WanOfNextYear-4x32-16ch"
    assert any(warning.startswith("Untested model: WanOfNextYear has no row") for warning in trace.warnings)


def test_an_unlisted_model_of_another_shape_is_refused():
    from safety_steering_pack.safety_steering.errors import MismatchError

    with pytest.raises(MismatchError, match="does not support models of class FluxOfNextYear yet"):
        renamed("flux", "FluxOfNextYear")


def test_models_out_of_scope_are_refused_by_name():
    from safety_steering_pack.bridge.models.families import FAMILIES
    from safety_steering_pack.bridge.models.families.unlisted import REFUSED
    from safety_steering_pack.bridge.models.model_map import read_shape
    from safety_steering_pack.safety_steering.errors import MismatchError

    for class_name, sentence in REFUSED.items():
        with pytest.raises(MismatchError, match=sentence.split(" ")[0]):
            read_shape(type(class_name, (torch.nn.Module,), {})())
    assert not {family.class_name for family in FAMILIES} & set(REFUSED)


def test_every_model_of_core_is_mapped_or_refused_by_name(comfy_in_process):
    """Read off core's source: what its models are given as `unet_model`, as an argument or as its default."""
    from safety_steering_pack.bridge.models.families import FAMILIES
    from safety_steering_pack.bridge.models.families.unlisted import REFUSED

    source = ast.parse((comfy_in_process.tree / "comfy" / "model_base.py").read_text(encoding="utf-8"))
    given = [call.value for call in ast.walk(source) if isinstance(call, ast.keyword) and call.arg == "unet_model"]
    for function in ast.walk(source):
        if isinstance(function, ast.FunctionDef) and function.args.defaults:
            names = [argument.arg for argument in function.args.args][-len(function.args.defaults) :]
            defaults = zip(names, function.args.defaults, strict=True)
            given += [default for name, default in defaults if name == "unet_model"]
    classes = {ast.unparse(value).rsplit(".", 1)[-1] for value in given} - {"unet_model"}
    assert len(classes) > 40
    known = {family.class_name for family in FAMILIES} | set(REFUSED)
    assert classes <= known, f"neither a row nor a refusal: {sorted(classes - known)}"
    if tree_version(comfy_in_process.tree) == COMFYUI_VERSION:  # an older one has fewer
        assert set(REFUSED) <= classes, f"core has no {sorted(set(REFUSED) - classes)}"
