"""Captions reach a text encoder as written: brackets weigh no words, and `embedding:` loads no file."""

from __future__ import annotations

import importlib

import pytest
import torch
from tiny_text_encoders import KINDS, tiny_clip

TEXTS = (
    "a photo (black and white) of the sea",
    "((nested (brackets))) and (weights:1.5)",
    "an open ( and a closed ) one, or ) ( both",
    r"already \(escaped\) brackets \ and a slash",
    "a slide on embedding:sea, embedding:sky",
    "[square] {curly} <angled> brackets",
)


@pytest.fixture(scope="module", params=sorted(KINDS))
def clip(request, comfy_in_process):
    return tiny_clip(request.param)


def tokens(clip, text: str) -> list[tuple[int, float]]:
    return [token[:2] for pieces in clip.tokenize(text).values() for piece in pieces for token in piece]


@pytest.mark.parametrize("text", TEXTS)
def test_every_token_of_a_caption_is_its_own_and_weighs_one(clip, text):
    encoders = importlib.import_module("safety_steering_pack.bridge.models.text_encoders")
    found = tokens(clip, encoders.literal(text))
    assert {weight for _, weight in found} == {1.0}
    part = getattr(clip.tokenizer, clip.tokenizer.clip)
    written = text.replace("embedding:", "embedding :")  # a space keeps it from naming a file
    own = part.tokenizer(written)["input_ids"]
    own = own[part.tokens_start : len(own) - 1 if part.tokenizer_adds_end_token else None]
    ids = [token for token, _ in found]
    assert any(ids[i : i + len(own)] == own for i in range(len(ids) - len(own) + 1))


def test_anchors_and_captured_prompts_are_encoded_as_written(comfy_in_process):
    """A weighted word would move the states of every token in front of and behind it."""
    clip = tiny_clip("umt5xxl")
    texts = importlib.import_module("safety_steering_pack.bridge.alignment.text_states")
    sampling = importlib.import_module("safety_steering_pack.bridge.sampling.sampling")
    with_weights = clip.encode_from_tokens_scheduled(clip.tokenize(TEXTS[0]))[0][0]
    escaped = TEXTS[0].replace("(", r"\(").replace(")", r"\)")
    as_written = clip.encode_from_tokens_scheduled(clip.tokenize(escaped))[0][0]
    assert not torch.equal(with_weights, as_written)
    found = texts.TextStates(clip).states(TEXTS[:1], lambda done, total: None)
    row = int(as_written[0].abs().sum(dim=-1).gt(0).sum())
    torch.testing.assert_close(found.states.pooled[0], as_written[0, :row].double().mean(dim=0).float())

    sampler = object.__new__(sampling.PromptSampler)
    sampler._clip, sampler._sampling = clip, sampling.Sampling({}, "", 1, 1.0, "euler", "simple", 0)
    prompts = [sampling.Prompt(sampling.Row("a", "safe", "x", "a", "train", length=1), TEXTS[0])]
    ((_, conditioning),) = next(iter(sampler.shards(prompts)))
    torch.testing.assert_close(conditioning[0][0], as_written.cpu())
