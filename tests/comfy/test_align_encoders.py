"""Text encoders of ComfyUI's own classes, small and random, as targets: without a model, and inside."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from portable import anchor_texts
from safety_steering_pack.safety_steering.alignment.maps import MIN_ANCHORS
from tiny.models import values

CLIP_SIZES = {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 3}
T5_SIZES = {"d_model": 64, "d_kv": 16, "d_ff": 64, "num_heads": 4, "num_layers": 3}
TEXTS = anchor_texts(MIN_ANCHORS)


def small_clip(encoder: Any, tokenizer: Any, **sizes: Any) -> Any:
    """A comfy.sd.CLIP around one of core's encoder classes."""
    import comfy.sd

    target = SimpleNamespace(params={}, clip=encoder, tokenizer=tokenizer)
    clip = comfy.sd.CLIP(target, model_options={f"{name}_model_config": value for name, value in sizes.items()})
    with torch.no_grad():
        for name, parameter in clip.cond_stage_model.named_parameters():
            parameter.copy_(values(name, parameter.shape, 0))
    return clip


@pytest.fixture(scope="module")
def clips(comfy_in_process):
    from comfy import sd1_clip
    from comfy.text_encoders import flux, lt

    return {
        "sd1": small_clip(sd1_clip.SD1ClipModel, sd1_clip.SD1Tokenizer, clip_l=CLIP_SIZES),
        "flux": small_clip(flux.flux_clip(), flux.FluxTokenizer, clip_l=CLIP_SIZES, t5xxl=T5_SIZES),
        "ltxv": small_clip(lt.ltxv_te(), lt.LTXVT5Tokenizer, t5xxl=T5_SIZES),
    }


@pytest.mark.parametrize(("name", "masked"), [("sd1", False), ("flux", False), ("ltxv", True)])
def test_an_encoder_alone_tells_its_familys_space(clips, name, masked):
    targets = importlib.import_module("safety_steering_pack.bridge.alignment.text_states")
    model_map = importlib.import_module("safety_steering_pack.bridge.models.model_map")
    clip = clips[name]
    found = targets.TextStates(clip).states(TEXTS, lambda done, total: None)
    row = next(row for row in model_map.FAMILIES if row.name == name)
    assert found.side.space == model_map.state_space(row, "conditioning", 64) == f"{name}.conditioning64"
    assert found.states.pooled.shape == (MIN_ANCHORS, 64)
    assert len(found.states.pooled.unique(dim=0)) == MIN_ANCHORS
    ((states, about),) = clip.encode_from_tokens_scheduled(clip.tokenize(TEXTS[0]))
    rows = about["attention_mask"][0].bool() if masked else torch.ones(states.shape[1], dtype=torch.bool)
    assert masked == bool((~rows).any())
    torch.testing.assert_close(found.states.pooled[0], states[0, rows].double().mean(dim=0).float())
    assert any(torch.equal(found.states.token[0], row) for row in states[0, rows])


def test_the_published_widths_have_the_spaces_that_apply_asks_for(comfy_in_process):
    encoders = importlib.import_module("safety_steering_pack.bridge.models.text_encoders")
    model_map = importlib.import_module("safety_steering_pack.bridge.models.model_map")
    from comfy.text_encoders.wan import te

    rows = {row.name: row for row in model_map.FAMILIES}
    wan = encoders.encoder_family(SimpleNamespace(cond_stage_model=object.__new__(te())))
    assert model_map.state_space(wan, "conditioning", 4096) == "umt5xxl.last"
    for name, width, space in (
        ("ltxv", 4096, "t5xxl.last"),
        ("flux", 4096, "t5xxl.last"),
        ("sd1", 768, "clip-l.last"),
        ("sdxl", 2048, "sdxl.clip"),
        ("qwen-image", 3584, "qwen2.5-vl-7b.last"),
        ("z-image", 2560, "qwen3-4b.penultimate"),
        ("hunyuan-video", 4096, "llava-llama3-8b.hunyuan-video"),
    ):
        assert name in encoders.ENCODERS.values()
        assert model_map.state_space(rows[name], "conditioning", width) == space


def test_what_changes_an_encoders_states_changes_its_key(clips):
    key = importlib.import_module("safety_steering_pack.bridge.models.fingerprints").clip_key
    clip = clips["sd1"]
    plain = key(clip)
    assert key(clip.clone()) == plain
    skipped = clip.clone()
    skipped.clip_layer(-2)
    patched = clip.clone()
    name = "clip_l.transformer.text_model.encoder.layers.0.mlp.fc1.weight"
    patched.add_patches({name: (torch.ones(64, 64),)}, 0.5)
    stronger = clip.clone()
    stronger.add_patches({name: (torch.ones(64, 64),)}, 0.7)
    optioned = clip.clone()
    optioned.set_tokenizer_option("min_length", 5)
    keys = [plain, key(skipped), key(patched), key(stronger), key(optioned), key(clips["flux"])]
    assert len({str(one) for one in keys}) == len(keys)


@pytest.mark.parametrize("name", ["sd1", "flux"])
def test_an_inner_layer_is_a_target_of_its_own(clips, name):
    inner = importlib.import_module("safety_steering_pack.bridge.alignment.text_states")
    found = inner.EncoderLayer(clips[name], 0.5).states(TEXTS, lambda done, total: None)
    assert found.side.hook_point == "encoder.2"
    assert found.side.space == {"sd1": "clip_l", "flux": "clip_l"}[name] + "/encoder.2"
    assert found.side.weight_fingerprint
    assert found.states.pooled.shape == (MIN_ANCHORS, 64)
    deeper = inner.EncoderLayer(clips[name], 1.0).states(TEXTS, lambda done, total: None)
    assert deeper.side.hook_point == "encoder.3"
    assert not torch.equal(deeper.states.pooled, found.states.pooled)
