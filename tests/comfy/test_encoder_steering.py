"""Steering inside text encoders of ComfyUI's own classes: only the prompt's own tokens, and nothing stays."""

from __future__ import annotations

import importlib
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safety_steering_pack.safety_steering.errors import MismatchError, NotSteeredError
from safety_steering_pack.safety_steering.hook_point import HookPoint
from safety_steering_pack.safety_steering.steering.interventions import Intervention
from safety_steering_pack.safety_steering.vectors.vector import (
    Direction,
    HookPointDirections,
    SafetyVector,
    VectorInfo,
)
from tiny_text_encoders import KINDS, WIDTH, tiny_clip

TEXT = "a dog and men at sea"
LAYER = 2
POINT = HookPoint(f"encoder.{LAYER}")
PLAIN_ADD = Intervention("add", "none")


def make_vector(name: str, point: HookPoint = POINT, width: int = WIDTH) -> SafetyVector:
    u = torch.nn.functional.normalize(torch.randn(1, width, generator=torch.Generator().manual_seed(3)), dim=1)
    one = torch.ones(1)
    direction = Direction(u, one * 2, one * 0, one, one)
    at = HookPointDirections(f"{name}/{point}", torch.tensor([0.0, 1.0]), one, {"violence": direction})
    return SafetyVector({point: at}, VectorInfo("transferred", "estimated"))


@pytest.fixture(scope="module")
def module(comfy_in_process):
    return importlib.import_module("safety_steering_pack.bridge.steering.encoder")


@pytest.fixture(scope="module")
def settings_of(module):
    kind = importlib.import_module("safety_steering_pack.bridge.steering.settings").SteeringSettings

    def make(strength: float = 1.0, how: Intervention = PLAIN_ADD, *points):
        return kind(strength, points or (POINT,), how, (0.0, 1.0))

    return make


@pytest.fixture(scope="module", params=sorted(KINDS))
def clip(request, comfy_in_process):
    return SimpleNamespace(kind=request.param, loaded=tiny_clip(request.param))


def encoded(clip, text: str = TEXT, **options) -> torch.Tensor:
    ((states, _about),) = clip.encode_from_tokens_scheduled(clip.tokenize(text, **options))
    return states


def read_layer(clip, name: str, text: str = TEXT, layer: int = LAYER, **options):
    """What the layer after one gets, and the tokens of every piece that the encoder reads."""
    part = getattr(clip.cond_stage_model, name)
    encoder = importlib.import_module("safety_steering_pack.bridge.language_models.encoder_fit").encoder_of(clip)
    seen, pieces = [], []
    tokens = clip.tokenize(text, **options)
    handles = [
        part.register_forward_pre_hook(lambda module, args: pieces.extend(args[0])),
        encoder.layers[layer].register_forward_pre_hook(
            lambda module, args, kwargs: seen.append(next(v for v in (*args, *kwargs.values()) if v.ndim == 3).clone()),
            with_kwargs=True,
        ),
    ]
    try:
        clip.encode_from_tokens_scheduled(tokens)
    finally:
        for handle in handles:
            handle.remove()
    return torch.cat(seen), [list(piece) for piece in pieces]


def own_places(kind: str, tokens: list[int]) -> slice:
    """Where a text's own tokens stand, as each tokenizer's source says."""
    if kind == "clip_l":  # begin, text, end and padding with ends
        return slice(1, tokens.index(49407))
    if kind in ("t5xxl", "umt5xxl"):  # text, end, padding
        return slice(0, tokens.index(1))
    if kind == "gemma3_4b":  # padding, begin, text
        return slice(tokens.index(2) + 1, len(tokens))
    newlines = [place for place, token in enumerate(tokens) if token == 198]  # <|im_start|>user\n text <|im_end|>\n...
    return slice(newlines[0] + 1, tokens.index(151645))


def moved(before: torch.Tensor, after: torch.Tensor) -> list[int]:
    return [place for place in range(len(before)) if not torch.equal(before[place], after[place])]


def test_only_the_prompts_own_tokens_move_and_by_what_was_asked(clip, module, settings_of):
    vector = make_vector(clip.kind)
    steered = module.steer_encoder(clip.loaded, vector, settings_of(1.5))
    (plain,), (ids,) = read_layer(clip.loaded, clip.kind)
    (after,), _ = read_layer(steered, clip.kind)
    own = range(len(ids))[own_places(clip.kind, ids)]
    assert moved(plain, after) == list(own)
    u = vector.at(POINT).categories["violence"].direction[0]
    torch.testing.assert_close(after[own] - plain[own], (3.0 * u).expand(len(own), -1), rtol=1e-4, atol=1e-4)


def test_strength_0_and_an_unsteered_clip_are_bit_identical(clip, module, settings_of):
    plain = encoded(clip.loaded)
    assert module.steer_encoder(clip.loaded, make_vector(clip.kind), settings_of(0.0)) is clip.loaded
    steered = module.steer_encoder(clip.loaded, make_vector(clip.kind), settings_of(1.0))
    assert not torch.equal(encoded(steered), plain)
    assert torch.equal(encoded(clip.loaded), plain)
    hooked = [m for m in clip.loaded.cond_stage_model.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert not hooked
    gated = settings_of(5.0, Intervention("clamp", "token", "pooled", -1e6))
    assert torch.equal(encoded(module.steer_encoder(clip.loaded, make_vector(clip.kind), gated)), plain)


def test_clones_carry_the_steering(clip, module, settings_of):
    steered = module.steer_encoder(clip.loaded, make_vector(clip.kind), settings_of(1.0))
    states = encoded(steered)
    assert torch.equal(encoded(steered.clone().clone()), states)
    assert module.encoder_steerings_of(steered.clone()) == module.encoder_steerings_of(steered)
    assert module.encoder_steerings_of(clip.loaded.clone()) == ()
    patched, plain = steered.clone(), clip.loaded.clone()  # as a LoRA does
    weight = next(
        name
        for name in clip.loaded.patcher.model.state_dict()
        if name.endswith(("wi_0.weight", "fc1.weight", "up_proj.weight"))
    )
    shape = clip.loaded.patcher.model.state_dict()[weight].shape
    for one in (patched, plain):
        one.add_patches({weight: (torch.ones(shape),)}, 0.5)
    assert not torch.equal(encoded(patched), encoded(plain))
    assert not torch.equal(encoded(patched), states)
    skipped = steered.clone()
    skipped.clip_layer(-2)  # CLIP Set Last Layer
    unsteered = clip.loaded.clone()
    unsteered.clip_layer(-2)
    assert not torch.equal(encoded(skipped), encoded(unsteered))


def test_an_empty_prompt_and_prompt_weights_keep_their_meaning(clip, module, settings_of):
    steered = module.steer_encoder(clip.loaded, make_vector(clip.kind), settings_of(1.0))
    (steering,) = module.encoder_steerings_of(steered)
    assert torch.equal(encoded(steered, ""), encoded(clip.loaded, ""))
    ((runs,),) = [list(made.traces) for made in steering.log.of_results()]
    assert (runs.status, runs.reason) == ("nothing to edit", "there was no text.")
    weighted = "a (dog:1.4) and men at sea"
    (plain, *empty), pieces = read_layer(clip.loaded, clip.kind, weighted)
    (after, *still), _ = read_layer(steered, clip.kind, weighted)
    assert moved(plain, after) == list(range(len(pieces[0]))[own_places(clip.kind, pieces[0])])
    assert all(
        torch.equal(one, other) for one, other in zip(empty, still, strict=True)
    )  # what weights are taken against
    assert bool(empty) == (clip.kind in ("clip_l", "t5xxl", "umt5xxl")), clip.kind


def test_a_long_prompt_is_one_sample_for_the_gate(module, settings_of, comfy_in_process):
    clip = tiny_clip("clip_l")
    text = "a small tree by the river " * 30
    steered = module.steer_encoder(clip, make_vector("clip_l"), settings_of(1.0))
    plain, pieces = read_layer(clip, "clip_l", text)
    after, _ = read_layer(steered, "clip_l", text)
    assert len(pieces) > 1
    for one, other, ids in zip(plain, after, pieces, strict=True):
        assert moved(one, other) == list(range(len(ids))[own_places("clip_l", ids)])
    (steering,) = module.encoder_steerings_of(steered)
    (hook,) = steering.log.of_results()[0].traces[-1].calls[0].hooks
    assert hook.acted == 1.0


def test_a_token_typed_by_the_user_hides_nothing_behind_it(module, settings_of, comfy_in_process):
    clip = tiny_clip("clip_l")
    steered = module.steer_encoder(clip, make_vector("clip_l"), settings_of(1.0))
    text = "a dog<|endoftext|> men at sea"
    (plain,), (ids,) = read_layer(clip, "clip_l", text)
    (after,), _ = read_layer(steered, "clip_l", text)
    end = max(place for place, token in enumerate(ids) if token != 49407) + 1
    assert 49407 in ids[1:end]
    assert moved(plain, after) == list(range(1, end))


def test_another_nodes_template_is_left_alone(module, settings_of, comfy_in_process):
    clip = tiny_clip("qwen3_4b")
    steered = module.steer_encoder(clip, make_vector("qwen3_4b"), settings_of(1.0))
    template = "<|im_start|>system\nDescribe the picture.<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n"
    (plain,), (ids,) = read_layer(clip, "qwen3_4b", llama_template=template)
    (after,), _ = read_layer(steered, "qwen3_4b", llama_template=template)
    newlines = [place for place, token in enumerate(ids) if token == 198]
    end = max(place for place, token in enumerate(ids) if token == 151645)
    assert moved(plain, after) == list(range(newlines[2] + 1, end))


def test_tokenizer_options_and_scheduled_hooks_are_steered(module, settings_of, comfy_in_process):
    import comfy.hooks

    clip = tiny_clip("t5xxl")
    vector = make_vector("t5xxl")
    longer = module.steer_encoder(clip, vector, settings_of(1.0)).clone()
    longer.set_tokenizer_option("t5xxl_min_length", 200)
    (plain,), (ids,) = read_layer(clip, "t5xxl")
    (after,), _ = read_layer(longer, "t5xxl")
    assert moved(plain, after[: len(plain)]) == list(range(ids.index(1)))
    steered = module.steer_encoder(clip, vector, settings_of(1.0))
    (steering,) = module.encoder_steerings_of(steered)
    scheduled = steered.clone()  # as Set CLIP Hooks does
    weight = next(name for name in clip.patcher.model.state_dict() if name.endswith("wi_0.weight"))
    shape = clip.patcher.model.state_dict()[weight].shape
    hooks = comfy.hooks.create_hook_lora({}, 1.0, 1.0)
    scheduled.patcher.forced_hooks = hooks
    scheduled.use_clip_schedule = True
    scheduled.patcher.register_all_hook_patches(
        hooks, comfy.hooks.create_target_dict(comfy.hooks.EnumWeightTarget.Clip)
    )
    entries = scheduled.encode_from_tokens_scheduled(scheduled.tokenize(TEXT))
    assert torch.equal(entries[0][0], encoded(steered))
    assert shape
    runs = [run for made in steering.log.of_results() for run in made.traces]
    assert [run.status for run in runs] == ["acted", "acted"]


def test_a_vector_of_another_encoder_is_refused(module, settings_of, comfy_in_process):
    clip = tiny_clip("clip_l")
    for vector, point in (
        (make_vector("t5xxl"), POINT),
        (make_vector("clip_l", HookPoint("encoder.9")), HookPoint("encoder.9")),
        (make_vector("clip_l", width=16), POINT),
    ):
        with pytest.raises(MismatchError, match="This CLIP's is clip_l, with 3 layers"):
            module.steer_encoder(clip, vector, settings_of(1.0, Intervention("add"), point))
    with pytest.raises(MismatchError, match="Connect the text encoder to clip"):
        module.steer_encoder(None, make_vector("clip_l"), settings_of())
    with pytest.raises(MismatchError, match="is not built as ComfyUI's own CLIP"):
        module.steer_encoder(object(), make_vector("clip_l"), settings_of())


def test_a_layer_that_another_node_replaced_is_no_steering(module, settings_of, comfy_in_process):
    clip = tiny_clip("t5xxl")
    steered = module.steer_encoder(clip, make_vector("t5xxl"), settings_of(1.0))
    part = clip.cond_stage_model.t5xxl
    original = part.transformer.forward
    part.transformer.forward = lambda *args, **kwargs: (torch.zeros(1, 4, WIDTH), None)
    try:
        with pytest.raises(NotSteeredError, match="was not steered: the hook on that layer did not fire"):
            encoded(steered)
    finally:
        part.transformer.forward = original
    assert not part._forward_pre_hooks
    encoded(steered)


def test_an_encoder_that_hides_the_tokens_is_no_steering(module, settings_of, comfy_in_process):
    clip = tiny_clip("t5xxl")
    steered = module.steer_encoder(clip, make_vector("t5xxl"), settings_of(1.0))
    part = clip.cond_stage_model.t5xxl
    part.encode = lambda tokens: part.transformer(None, None, embeds=torch.zeros(1, 4, WIDTH), dtype=torch.float32)
    try:
        with pytest.raises(NotSteeredError, match="in a way that hides which tokens are the prompt's"):
            encoded(steered)
    finally:
        del part.encode


def test_the_trace_tells_of_all_texts_of_a_prompt(module, settings_of, comfy_in_process):
    clip, heard = tiny_clip("clip_l"), []
    steered = module.steer_encoder(clip, make_vector("clip_l"), settings_of(2.0), heard.append)
    encoded(steered)
    encoded(steered, "")
    assert [trace.status for trace in heard] == ["acted", "acted"]
    assert heard[-1].summary().startswith(f"Moved the states at {POINT} in the text encoder by ")
    assert heard[-1].summary().endswith("of their size in 1 of 2 texts.")
    assert [call.sigma for call in heard[-1].calls] == [1.0, 2.0]


def test_two_steerings_on_one_clip_both_act(module, settings_of, comfy_in_process):
    clip = tiny_clip("clip_l")
    vector = make_vector("clip_l")
    once = module.steer_encoder(clip, vector, settings_of(1.0))
    twice = module.steer_encoder(once, vector, settings_of(1.0))
    (plain,), _ = read_layer(clip, "clip_l")
    (one,), _ = read_layer(once, "clip_l")
    (two,), _ = read_layer(twice, "clip_l")
    torch.testing.assert_close(two - one, one - plain, rtol=1e-3, atol=1e-4)


def test_settings_are_split_by_where_they_act(module, settings_of):
    both = replace(settings_of(), hook_points=(HookPoint("conditioning"), POINT))
    in_model, in_encoder = module.split_settings(both)
    assert (in_model.hook_points, in_encoder.hook_points) == (("conditioning",), (POINT,))
    assert module.split_settings(settings_of())[0] is None
