"""A text encoder inside ComfyUI as a source: its layers' own states, of a text's own tokens."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import pytest
import torch
from safety_steering_pack.safety_steering.errors import SafetySteeringError
from tiny_text_encoders import KINDS, LAYERS, WIDTH, tiny_clip

TEXTS = ("a dog", "men at sea (in a storm)", "x")


@pytest.fixture(scope="module")
def clip_source(comfy_in_process):
    return importlib.import_module("safety_steering_pack.bridge.language_models.clip_source")


@pytest.fixture(scope="module", params=sorted(KINDS))
def clip(request, comfy_in_process):
    return SimpleNamespace(kind=request.param, loaded=tiny_clip(request.param))


def ids(clip, text: str) -> list[int]:
    """The tokens that ComfyUI gives the encoder for a text, in one piece."""
    escaped = text.replace("(", "\\(").replace(")", "\\)")
    (pieces,) = clip.loaded.tokenize(escaped).values()
    (piece,) = pieces
    assert all(weight == 1.0 for _, weight in piece)  # brackets weigh nothing
    return [token for token, _ in piece]


def own_tokens(clip, text: str) -> slice:
    """Where a text's own tokens stand, as each tokenizer's source says."""
    tokens = ids(clip, text)
    if clip.kind == "clip_l":  # begin, text, end and padding with ends
        return slice(1, tokens.index(49407))
    if clip.kind in ("t5xxl", "umt5xxl"):  # text, end, padding
        return slice(0, tokens.index(1))
    if clip.kind == "gemma3_4b":  # padding, begin, text
        return slice(tokens.index(2) + 1, len(tokens))
    newlines = [place for place, token in enumerate(tokens) if token == 198]  # <|im_start|>user\n text <|im_end|>\n...
    return slice(newlines[0] + 1, tokens.index(151645))


def layer_states(clip, text: str) -> torch.Tensor:
    """States (layers + 1, tokens, D) by the encoder's own means: what an intermediate output is, without any norm."""
    part = getattr(clip.loaded.cond_stage_model, clip.loaded.cond_stage_model.clip)
    states = []
    with torch.no_grad():
        embeds, mask, counts, _ = part.process_tokens([ids(clip, text)], torch.device("cpu"))
        for layer in range(LAYERS):
            given = mask if part.enable_attention_masks else None
            _, state, *_ = part.transformer(
                None,
                given,
                embeds=embeds.clone(),
                num_tokens=counts,
                intermediate_output=layer,
                final_layer_norm_intermediate=False,
                dtype=torch.float32,
            )
            states.append(state[0])
    return torch.stack([embeds[0], *states])


def test_states_are_those_of_the_texts_own_tokens(clip, clip_source):
    source = clip_source.ClipSource(clip.loaded)
    assert (source.name, source.layers, source.width) == (clip.kind, LAYERS, WIDTH)
    assert source.space(2) == f"{source.name}/source.2"
    layers = list(range(1, LAYERS + 1))
    found = {pooling: source.states(TEXTS, layers, pooling) for pooling in ("mean", "last")}
    for number, text in enumerate(TEXTS):
        own = layer_states(clip, text)[1:, own_tokens(clip, text)]
        torch.testing.assert_close(found["mean"][number], own.mean(dim=1), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found["last"][number], own[:, -1], rtol=1e-4, atol=1e-5)


def test_embeddings_are_layer_0_and_one_token_is_one_of_the_texts(clip, clip_source):
    source = clip_source.ClipSource(clip.loaded)
    text = TEXTS[1]
    own = layer_states(clip, text)[:, own_tokens(clip, text)]
    states = source.states([text], [0, 2], "token")[0]
    assert bool(torch.isclose(own[2], states[1], rtol=1e-4, atol=1e-5).all(dim=1).any())
    if clip.kind != "clip_l":  # it adds positions to its embeddings
        torch.testing.assert_close(source.states([text], [0])[0, 0], own[0].mean(dim=0), rtol=1e-4, atol=1e-5)


def test_a_chat_template_is_seen_where_there_is_one(clip, clip_source):
    source = clip_source.ClipSource(clip.loaded)
    if clip.kind != "qwen3_4b":
        assert source.poolings == ("mean", "last")
        with pytest.raises(SafetySteeringError, match="It has no chat template"):
            source.states(["a"], [1], "chat")
        return
    assert source.poolings == ("mean", "last", "chat")
    torch.testing.assert_close(
        source.states(["a dog"], [3], "chat")[0, 0], layer_states(clip, "a dog")[3, -1], rtol=1e-4, atol=1e-5
    )


def test_an_empty_and_a_very_long_text_have_states(clip, clip_source):
    source = clip_source.ClipSource(clip.loaded)
    states = source.states(["", "a small tree by the river " * 30], [1, 3])
    assert states.shape == (2, 2, WIDTH)
    assert bool(states.isfinite().all())


def test_no_hook_is_left_and_an_interrupt_stops_it(clip, clip_source):
    source = clip_source.ClipSource(clip.loaded)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        source.states(TEXTS, [0, 1], progress=stop)
    modules = list(clip.loaded.cond_stage_model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)


def test_the_largest_encoder_of_several_is_read(comfy_in_process, clip_source):
    small, large = tiny_clip("clip_l").cond_stage_model, tiny_clip("t5xxl").cond_stage_model
    both = torch.nn.Module()
    both.t5xxl, both.clip_l = large.t5xxl, small.clip_l
    name, _ = clip_source.largest_encoder(SimpleNamespace(cond_stage_model=both))
    assert name == "t5xxl"  # equal in width and depth: the first
    narrow = torch.nn.Module()
    narrow.clip_l, narrow.other = small.clip_l, torch.nn.Linear(1, 1)
    assert clip_source.largest_encoder(SimpleNamespace(cond_stage_model=narrow))[1] is small.clip_l.transformer
    with pytest.raises(SafetySteeringError, match="has no text encoder whose layers can be read"):
        clip_source.largest_encoder(SimpleNamespace(cond_stage_model=torch.nn.Linear(1, 1)))


def test_other_weights_have_another_fingerprint(comfy_in_process, clip_source):
    prints = [clip_source.ClipSource(tiny_clip("clip_l", seed=seed)).fingerprint for seed in (0, 0, 1)]
    assert prints[0] == prints[1] != prints[2]
