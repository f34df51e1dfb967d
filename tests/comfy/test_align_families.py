"""A portable vector, fitted and carried by the nodes' code into a tiny model of each family, moves what it should."""

from __future__ import annotations

import dataclasses
import importlib

import pytest
import torch
from exact_moves import check_moved
from family_cases import CASES
from family_cases.case import from_loader, on_meta
from family_cases.harness import Family, watched
from family_cases.runs import run
from family_cases.video import LTX2_SIZES
from portable import World, anchor_texts
from portable_clip import TracedClip, TracedClipVision
from safety_steering_pack.safety_steering.alignment.maps import AlignmentSettings
from safety_steering_pack.safety_steering.alignment.transfer import transfer
from safety_steering_pack.safety_steering.errors import MismatchError

ANCHORS = 24
STRENGTH = 2.0
SPACES = {
    "wan": "umt5xxl.last",
    "wan-i2v": "umt5xxl.last",
    "wan-2.2-ti2v-start-frame": "umt5xxl.last",
    "ltxv": "t5xxl.last",
    "ltx2": "ltx2.connector.video64",
    "ltx2.3": "ltx2.3.connector.video32",
    "flux": "t5xxl.last",
    "sd1": "clip-l.last",
    "sdxl": None,
    "sd3": "sd3.t5",
    "qwen-image": None,
    "z-image": None,
    "hunyuan-video": "llava-llama3-8b.hunyuan-video",
}


@pytest.fixture
def align(comfy_in_process, tmp_path, monkeypatch):
    """The fit, with a cache of its own."""
    module = importlib.import_module("safety_steering_pack.bridge.alignment.run")
    monkeypatch.setattr(module, "alignment_paths", lambda key: [tmp_path / f"{key}.safetensors"])
    return module


def portable(texts=None):
    return World().vector(ANCHORS, texts=texts or anchor_texts(ANCHORS)).with_mix({"violence": 1.0})


def carry(align, vector, choice=None, settings=None, **connected):
    inputs = align.Inputs(vector, **connected)
    alignment = align.align(inputs, choice or {"target": "conditioning"}, settings or AlignmentSettings())
    return transfer(vector, alignment), alignment


def shift(vector, place):
    """How `add` moves a token. The mix has one category: sums of several round once more."""
    direction = vector.at(place).categories["violence"]
    u = direction.direction[0].double()
    return STRENGTH * direction.gap[0].double() * u / u.norm()


@pytest.mark.parametrize("name", SPACES)
def test_a_carried_vector_moves_exactly_the_editable_tokens(align, name):
    family = Family(CASES[name])
    case, clip, source = family.case, TracedClip(family.case), portable()
    vector, alignment = carry(align, source, clip=clip, model=family.patcher, latent={"samples": case.latents()})
    point = vector.at("conditioning")
    assert point.space in importlib.import_module("safety_steering_pack.bridge.models.model_map").state_spaces(
        family.shape.family, "conditioning", point.width
    )
    if SPACES[name]:
        assert point.space == SPACES[name]
    assert set(clip.texts) <= {*source.anchors.texts, _probe()}
    assert alignment.anchors == ANCHORS
    with watched(family) as (_, plain):
        run(case, family.patcher)
    with watched(family) as (_, calls):
        run(case, family.steered(("conditioning",), STRENGTH, vector))
    for before, after in zip(plain, calls, strict=True):
        old, new = case.states_of(before), case.states_of(after)
        check_moved(old[0], new[0], case.moved_states, shift(vector, "conditioning"))
        assert torch.equal(old[1], new[1]), "another part of the argument moved"


def _probe():
    return importlib.import_module("safety_steering_pack.bridge.models.fingerprints").PROBE


@pytest.mark.parametrize(("name", "width"), [("ltx2", 64), ("ltx2.3", 48)])
def test_behind_a_connector_the_states_are_the_connectors(align, name, width):
    case = CASES[name]
    # a connector as wide as the captions, as in the real model
    sizes = {**LTX2_SIZES, "connector_attention_head_dim": 32}
    build = from_loader(on_meta("comfy.ldm.lightricks.av_model", "LTXAVModel", **sizes), {"transformer": sizes})
    raw = dataclasses.replace(
        case,
        build=build if name == "ltx2" else case.build,
        text=(case.text[0], width),
        extras=lambda generator: {**case.extras(generator), "unprocessed_ltxav_embeds": True},
    )
    family = Family(raw)
    vector, alignment = carry(
        align, portable(), clip=TracedClip(raw), model=family.patcher, latent={"samples": raw.latents()}
    )
    assert vector.at("conditioning").space == SPACES[name]
    assert any("reworks the prompt" in note for note in alignment.about["notes"])
    with watched(family) as (_, plain):
        run(raw, family.patcher)
    with watched(family) as (_, calls):
        run(raw, family.steered(("conditioning",), STRENGTH, vector))
    for before, after in zip(plain, calls, strict=True):
        old, new = raw.states_of(before), raw.states_of(after)
        moved = [row for row in range(old[0].shape[1]) if bool((old[0][:, row] != 0).any())]
        check_moved(old[0], new[0], moved, shift(vector, "conditioning"))
        assert torch.equal(old[1], new[1]), "the sound's states moved"


def test_the_other_of_two_spaces_can_be_chosen(align):
    family = Family(CASES["sd3"])
    clip, latent = TracedClip(family.case), {"samples": family.case.latents()}
    choice = {"target": "conditioning", "space": "sd3.clip"}
    vector, _ = carry(align, portable(), choice, clip=clip, model=family.patcher, latent=latent)
    assert vector.at("conditioning").space == "sd3.clip"
    with watched(family) as (_, plain):
        run(family.case, family.patcher)
    with watched(family) as (_, calls):
        run(family.case, family.steered(("conditioning",), STRENGTH, vector))
    for before, after in zip(plain, calls, strict=True):
        old, new = before[family.case.states_at], after[family.case.states_at]
        check_moved(old[..., :2048], new[..., :2048], range(4), shift(vector, "conditioning"))
        assert torch.equal(old[..., 2048:], new[..., 2048:])
    with pytest.raises(MismatchError, match=r"has no space 'umt5xxl\.last'"):
        carry(align, portable(), {**choice, "space": "umt5xxl.last"}, clip=clip, model=family.patcher, latent=latent)


def test_image_states_of_an_image_to_video_model(align):
    family = Family(CASES["wan-i2v"])
    source, encoder = portable(), TracedClipVision()
    images = torch.rand(ANCHORS, 8, 8, 3, generator=torch.Generator().manual_seed(0))
    vector, alignment = carry(
        align,
        source,
        {"target": "clip_vision"},
        clip_vision=encoder,
        model=family.patcher,
        images=images,
        anchors=_prompts(source.anchors.texts),
    )
    assert vector.at("clip_vision").space == "clip-vision-h.penultimate"
    assert "of your own" in alignment.about["notes"][0]
    with watched(family) as (_, plain):
        run(family.case, family.patcher)
    with watched(family) as (_, calls):
        run(family.case, family.steered(("clip_vision",), STRENGTH, vector))
    for before, after in zip(plain, calls, strict=True):
        check_moved(before["clip_fea"], after["clip_fea"], range(257), shift(vector, "clip_vision"))
    with pytest.raises(ValueError, match="24 images and 20 captions"):
        carry(
            align,
            source,
            {"target": "clip_vision"},
            clip_vision=encoder,
            images=images,
            anchors=_prompts(source.anchors.texts[:20]),
        )


def _prompts(texts):
    from safety_steering_pack.safety_steering.prompts.prompt_set import PromptRow, PromptSet

    return PromptSet(tuple(PromptRow(f"a{i}", "benign", safe=text) for i, text in enumerate(texts)), name="mine.csv")


def test_blocks_are_captured_on_benign_prompts(align, tmp_path, monkeypatch):
    blocks = importlib.import_module("safety_steering_pack.bridge.alignment.block_states")
    monkeypatch.setattr(blocks, "activation_paths", lambda name: [tmp_path / name])
    family = Family(CASES["wan"])
    clip, source = TracedClip(family.case), portable()
    choice = {"target": "blocks", "hook_point": "0.4", "steps": 4, "first_steps": 1, "full_runs": 3}
    vector, alignment = carry(
        align, source, choice, clip=clip, model=family.patcher, latent={"samples": family.case.latents()}
    )
    place = next(iter(vector.hook_points))
    assert vector.at(place).space == f"{family.shape.name}/{place}"
    assert vector.info.block_counts == family.shape.block_counts
    assert set(clip.texts) <= {*source.anchors.texts, "", _probe()}
    assert any(
        note.startswith("Cosine to the states of whole generations, on 3 anchors") for note in alignment.about["notes"]
    )
    plain = run(family.case, family.patcher)
    assert not torch.equal(run(family.case, family.steered((place,), STRENGTH, vector)), plain)
    with pytest.raises(MismatchError, match="means 4 blocks"):
        carry(align, source, {**choice, "hook_point": "all"}, clip=clip, model=family.patcher)
