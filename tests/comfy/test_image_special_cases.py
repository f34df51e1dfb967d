"""What is special about single image families, on the tiny models of `family_cases`: one test each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from exact_moves import check_moved
from family_cases import CASES
from family_cases.case import fill, from_config
from family_cases.harness import GAP, STRENGTH, Family, check_blocks, skip_unless_core_has, watched
from family_cases.image import FLUX, FLUX2, GRID, UNET
from family_cases.runs import run
from tiny.vectors import random_vector

Extras = Callable[[torch.Generator], dict[str, Any]]
pytestmark = pytest.mark.usefixtures("comfy_in_process")


def altered(name: str, **changes: Any) -> Family:
    """A case with some of it changed, its model built."""
    return Family(replace(CASES[name], **changes))


def with_extras(name: str, **extras: Any) -> Family:
    """A case whose conditioning carries more."""
    former = CASES[name].extras
    return altered(name, extras=lambda generator: {**former(generator), **extras})


# UNet: core runs the children of a block and never the block


def test_a_hook_on_a_unet_block_itself_never_fires_but_steering_does():
    family = Family(CASES["sdxl"])
    fired: Counter[str] = Counter()
    handles = []
    for block in (*family.model.input_blocks, *family.model.output_blocks):
        handles.append(block.register_forward_hook(lambda m, i, o: fired.update(["container"])))
        handles.append(block[-1].register_forward_hook(lambda m, i, o: fired.update(["last child"])))
    plain = run(family.case, family.patcher)
    for handle in handles:
        handle.remove()
    assert fired == {"last child": 8}
    for point in ("block.input_blocks.0.image", "block.middle_block.1.image", "block.output_blocks.3.image"):
        assert not torch.equal(run(family.case, family.steered((point,))), plain), f"{point} was not steered"


def test_what_a_unet_reads_is_steered_also_where_another_node_replaces_the_attention():
    """IP-Adapter and others replace `attn2` through core's patches: then core calls its last projection alone."""
    family = Family(CASES["sdxl"])
    reads = tuple(point for point in family.points if point.kind == "cross_attention")
    assert len(reads) == 7  # one in the middle, two in each of three other blocks
    replaced, asked = family.patcher.clone(), []
    for place in (("middle", 0), ("output", 0), ("output", 1)):
        replaced.set_model_attn2_replace(lambda q, k, v, options: asked.append(q) or torch.zeros_like(q), *place)
    steered = family.steered(reads, patcher=replaced)
    with watched(family) as (seen, calls):
        run(family.case, steered)
    assert len(asked) == 5 * len(calls)
    assert all(len(seen[block]) == len(calls) for block, (point, *_) in family.blocks().items() if point in reads)


@pytest.mark.parametrize(
    ("name", "point", "why"),
    [
        ("flux", "cross_attention.single_blocks.0.image", r"attention and MLP leave .* Steer at its double_blocks\."),
        ("flux", "cross_attention.double_blocks.9.image", "has 2 double_blocks, so there is no"),
        ("flux", "cross_attention.double_blocks.0.text", "returns no stream 'text'"),
        ("z-image", "cross_attention.noise_refiner.0.image", r"do not read the text. Steer at its layers\."),
        ("sdxl", "cross_attention.input_blocks.1.image", r"Steer at its transformer_blocks\."),
        ("svd", "cross_attention", r"read an image and no text. Steer at 'conditioning' or at its blocks' outputs\."),
    ],
)
def test_where_nothing_holds_what_a_block_reads_one_sentence_says_why(name, point, why):
    from safety_steering_pack.bridge.capture.hook_points import choose_hook_points
    from safety_steering_pack.safety_steering.errors import MismatchError

    with pytest.raises(MismatchError, match=why):
        choose_hook_points(point, Family(CASES[name]).shape)


@pytest.mark.parametrize(
    "name", ["flux", "sd3", "sdxl", "lumina2", "z-image", "hidream", "auraflow", "omnigen2", "boogu"]
)
def test_lists_are_in_running_order_so_a_depth_means_a_depth(comfy_in_process, name):
    from safety_steering_pack.safety_steering.hook_point import select_hook_points

    skip_unless_core_has(CASES[name], comfy_in_process.tree)
    family = Family(CASES[name])
    with watched(family) as (seen, _):
        run(family.case, family.patcher)
    for kind in ("block", "cross_attention"):
        modules = [module for module, points in family.blocks().items() if points[0].startswith(f"{kind}.")]
        assert [module for module in seen if module in modules] == modules
    # refiners of the caption alone run beside the image's blocks and are not counted
    blocks = [points for points in family.blocks().values() if points[0].startswith("block.")]
    counted = [points for points in blocks if "context_refiner" not in points[0]]
    for depth, points in (("0.0", counted[0]), ("1.0", counted[-1])):
        (chosen,) = select_hook_points(depth, family.points, family.shape.block_counts)
        assert chosen in points


# Reference latents: Kontext, Flux 2, Qwen-Image-Edit


@pytest.mark.parametrize("method", ["offset", "index", "uxo"])
def test_kontext_references_are_not_edited_wherever_they_are_placed(method):
    check_blocks(with_extras("flux-kontext", reference_latents_method=method))


def test_klein_references_at_timestep_0_are_not_edited():
    former = CASES["flux2"].extras
    check_blocks(
        altered(
            "flux2",
            build=from_config("Flux2", **{**FLUX2, "guidance_embed": False}),  # core cannot with a guidance embedding
            extras=lambda generator: {**former(generator), "reference_latents_method": "index_timestep_zero"},
        )
    )


@pytest.mark.parametrize("method", ["offset", "index", "negative_index", "index_timestep_zero"])
def test_qwen_edit_references_are_not_edited_wherever_they_are_placed(method):
    check_blocks(with_extras("qwen-image-edit", reference_latents_method=method))


def test_krea_references_without_a_method_are_no_tokens(comfy_in_process):
    skip_unless_core_has(CASES["krea2"], comfy_in_process.tree)
    family = with_extras("krea2", reference_latents_method=None)
    tokens = {name: replace(own, total=24) for name, own in family.case.tokens.items()}
    family.case = replace(family.case, tokens=tokens)
    check_blocks(family)


def test_flux_image_tokens_are_found_behind_tokens_that_another_node_put_in_front():
    """What a style model does: three more tokens in front of the text."""
    family = Family(CASES["flux"])
    family.patcher.set_model_post_input_patch(_three_more_tokens)
    family.points = tuple(point for point in family.points if point.endswith("image"))
    image = family.case.tokens["single_blocks.image"]
    tokens = {**family.case.tokens, "single_blocks.image": replace(image, total=27, moved=range(11, 27))}
    family.case = replace(family.case, tokens=tokens)
    check_blocks(family)


def _three_more_tokens(inputs: dict[str, Any]) -> dict[str, Any]:
    text, ids = inputs["txt"], inputs["txt_ids"]
    return {**inputs, "txt": torch.cat([text[:, :3], text], dim=1), "txt_ids": torch.cat([ids[:, :3], ids], dim=1)}


# HiDream-O1: keys and values of the prompt stay on the module from run to run


def test_hidream_o1_keeps_no_steered_prefix():
    family = altered("hidream-o1", prepare=lambda patcher: patcher)
    cache = family.model.clear_kv_cache

    def second_run(first: Any) -> torch.Tensor:
        cache()
        run(family.case, first)
        assert len(family.model._kv_cache_entries) == 1, "core no longer keeps the prefix; drop this test"
        return run(family.case, family.patcher)

    assert torch.equal(second_run(family.steered(family.points)), second_run(family.patcher))


def test_hidream_o1_is_steered_exactly_when_the_prefix_comes_from_the_cache():
    family = altered("hidream-o1", prepare=lambda patcher: patcher)
    run(family.case, family.patcher)
    (tokens,) = family.case.tokens.values()
    family.case = replace(family.case, tokens={"layers.image": replace(tokens, total=17, moved=range(1, 17))})
    check_blocks(family)


def test_hidream_o1_reference_images_are_not_edited():
    image = torch.rand(1, 128, 128, 3, generator=torch.Generator().manual_seed(3))
    family = with_extras("hidream-o1", reference_latents=[image])
    seen = 144 + 2  # the picture as the language model sees it, between its start and end tokens
    (tokens,) = family.case.tokens.values()
    text = 6 + seen
    moved = range(text, text + 16)
    family.case = replace(family.case, tokens={"layers.image": replace(tokens, total=text + 32, moved=moved)})
    check_blocks(family)


def test_hidream_o1_refuses_the_text_stream():
    from safety_steering_pack.safety_steering.errors import MismatchError

    family = Family(CASES["hidream-o1"])
    point = "block.layers.0.text"
    vector = random_vector(
        {point: (f"{family.shape.name}/{point}", 16)}, family="hidream-o1", block_counts=family.shape.block_counts
    )
    with pytest.raises(MismatchError, match=r"returns? no stream 'text'"):
        family.steered((point,), vector=vector)


# ControlNet: core adds to what the hooks returned, in place


def _controlled(name: str, control_model: Any, extra_conds: list[str]) -> Family:
    import comfy.controlnet

    fill(control_model)
    device = torch.device("cpu")
    control = comfy.controlnet.ControlNet(control_model, load_device=device, extra_conds=extra_conds)
    control.set_cond_hint(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(4)))
    return with_extras(name, control=control, control_apply_to_uncond=True)


def controlled_unet() -> Family:
    import comfy.cldm.cldm
    import comfy.ops

    sizes = {key: value for key, value in UNET.items() if key not in ("out_channels", "transformer_depth_output")}
    sizes |= {"num_heads": 8, "num_head_channels": -1, "context_dim": 768, "hint_channels": 3}
    return _controlled("sd1", comfy.cldm.cldm.ControlNet(**sizes, operations=comfy.ops.disable_weight_init), ["y"])


def controlled_flux() -> Family:
    import comfy.ldm.flux.controlnet
    import comfy.ops

    sizes = {**FLUX, "in_channels": 16, "out_channels": 16, "guidance_embed": True}
    model = comfy.ldm.flux.controlnet.ControlNetFlux(
        **sizes, dtype=torch.float32, operations=comfy.ops.disable_weight_init
    )
    family = _controlled("flux", model, ["y", "guidance"])
    family.case = replace(family.case, latent=(1, 16, 8, 8))
    return family


@pytest.mark.parametrize("controlled", [controlled_unet, controlled_flux])
def test_controlnet_and_steering_do_not_disturb_each_other(controlled):
    family = controlled()
    bare = replace(family.case, extras=CASES[family.case.name].extras)
    plain = run(family.case, family.patcher)
    assert not torch.equal(plain, run(bare, family.patcher)), "the ControlNet does nothing"
    assert torch.equal(run(family.case, family.steered(family.points, strength=0.0)), plain)
    directions = {point: family.direction(point) for point in family.points}
    check_blocks(family)
    assert all(torch.equal(family.direction(point), before) for point, before in directions.items())
    assert torch.equal(run(family.case, family.patcher), plain)


# Padding, and arguments in several parts


def test_z_image_padding_stays_where_it_is_whatever_the_lengths():
    """33 rows of text become 64, 36 image tokens become 64."""
    tokens = CASES["z-image"].tokens
    expected = {
        "context_refiner.text": (64, range(33)),
        "noise_refiner.image": (64, range(36)),
        "layers.image": (128, range(64, 100)),
        "layers.text": (128, range(33)),
    }
    check_blocks(
        altered(
            "z-image",
            latent=(1, 16, 12, 12),
            text=(33, 24),
            words=33,
            tokens={name: replace(tokens[name], total=n, moved=moved) for name, (n, moved) in expected.items()},
        )
    )


def moved_states(family: Family, space: str, width: int, argument: str, rows: Any, channels: slice) -> None:
    """Steering in `space` moves these rows and channels of one argument and leaves all others bit-equal."""
    vector = random_vector({"conditioning": (space, width)}, gap=GAP)
    with watched(family) as (_, plain_calls):
        run(family.case, family.patcher)
    with watched(family) as (_, calls):
        run(family.case, family.steered(("conditioning",), vector=vector))
    shift = STRENGTH * GAP * vector.at("conditioning").categories["violence"].direction[0].double()
    for plain, call in zip(plain_calls, calls, strict=True):
        before, after = plain.pop(argument), call.pop(argument)
        check_moved(before[..., channels], after[..., channels], rows, shift)
        others = [i for i in range(before.shape[-1]) if i not in range(before.shape[-1])[channels]]
        assert torch.equal(before[..., others], after[..., others])
        for name, value in plain.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, call[name]), f"{name} moved as well"


def test_sd3_clip_rows_are_a_space_of_their_own():
    moved_states(Family(CASES["sd3"]), "sd3.clip", 2048, "context", range(4), slice(2048))


def test_hunyuan_dit_t5_states_are_a_space_of_their_own():
    family = Family(CASES["hunyuan-dit"])
    moved_states(family, "hunyuan-dit.t516", 16, "encoder_hidden_states_t5", range(6), slice(None))


def test_ideogram_blocks_are_steered_in_calls_without_text():
    """Its unconditional pass has no text at all."""
    family = altered(
        "ideogram4",
        states=lambda states: None,
        extras=lambda generator: {},
        tokens={
            "layers.image": replace(CASES["ideogram4"].tokens["layers.image"], total=16, moved=GRID),
            "layers.text": replace(CASES["ideogram4"].tokens["layers.text"], total=16, moved=()),
        },
    )
    check_blocks(family)


def test_a_sequence_that_is_too_short_for_its_image_is_refused():
    from safety_steering_pack.bridge.models.tokens import TokenRange
    from safety_steering_pack.bridge.steering.injection import Edit, edit_tokens
    from safety_steering_pack.safety_steering.errors import NotSteeredError
    from safety_steering_pack.safety_steering.steering.interventions import Intervention, stack_targets

    point = random_vector({"conditioning": ("t5xxl.last", 8)}).at("conditioning")
    targets = stack_targets(point, {"violence": 1.0}, 0)
    edit = Edit(targets, Intervention("add", "none"), torch.ones(1, 1, 1), None, TokenRange(-16, 16))
    edit_tokens(torch.randn(1, 16, 8), edit)
    with pytest.raises(NotSteeredError, match="token layout of this model is not the one"):
        edit_tokens(torch.randn(1, 15, 8), edit)


def test_a_lumina_model_without_caption_padding_is_not_taken_for_z_image():
    lumina, z_image, pixel = (Family(CASES[name]).shape for name in ("lumina2", "z-image", "z-image-pixel"))
    assert (lumina.family.name, z_image.family.name, pixel.family.name) == ("lumina2", "z-image", "z-image-pixel")
