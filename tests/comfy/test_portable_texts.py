"""What the small world's text encoder reads while a direction is carried into its generator: benign texts alone."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from small_world.measuring.sampling import Sampling
from small_world.models import text
from small_world.models.encoder_layer import INNER
from small_world.portable import vectors as portable_vectors
from small_world.portable.plan import BLOCK
from small_world.portable.source_vector import benign_captions
from small_world.portable.vectors import SEED, Recipe, make_vectors, source_vector
from small_world.scenes.splits import SPLITS, prompt_pairs
from small_world.scenes.world import UNSAFE_ELEMENTS

ANCHORS, STYLE = 30, 16


class TracedTokenizer:
    """MiniLM's tokenizer, which keeps every text that it is given: the model reads nothing but what it makes."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.texts: list[str] = []

    def __call__(self, texts: list[str], **how: Any) -> Any:
        self.texts += texts
        return self._tokenizer(texts, **how)


@pytest.fixture
def read(comfy_in_process: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What MiniLM has read; counts are small, and nothing is cached."""
    torch.set_num_threads(1)
    tokenizer, model = text.minilm()
    traced = TracedTokenizer(tokenizer)
    monkeypatch.setattr(text, "minilm", lambda: (traced, model))
    monkeypatch.setattr(portable_vectors, "vectors_folder", lambda: tmp_path)
    monkeypatch.setattr(portable_vectors, "STYLE", {})
    monkeypatch.setattr(portable_vectors, "STYLE_AT_BLOCKS", STYLE)
    short = partial(portable_vectors.generate_latents, how=Sampling(steps=2))
    monkeypatch.setattr(portable_vectors, "generate_latents", short)
    portable_vectors.align.cache_clear()
    portable_vectors.target_states.cache_clear()
    return traced.texts


RECIPES = {
    "headline": Recipe(anchors=ANCHORS),
    "bundled": Recipe("bundled", anchors=ANCHORS),
    "not sharpened": Recipe(anchors=ANCHORS, sharpen=0.0),
    "permuted": Recipe(anchors=ANCHORS, permuted=1),
    "random": Recipe(anchors=ANCHORS, random=1),
    "inner layer": Recipe(anchors=ANCHORS, hook_point=INNER),
    "block": Recipe(anchors=ANCHORS, hook_point=BLOCK),
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_no_unsafe_text_reaches_the_target_while_a_direction_is_carried_over(recipe: Recipe, read: list[str]) -> None:
    assert (make_vectors([recipe]) / recipe.file).exists()
    anchors, captions = set(source_vector(recipe.source).anchors.texts), set(benign_captions(STYLE, SEED))
    assert len(set(read) & anchors) == ANCHORS
    assert set(read) - anchors == (captions if recipe.sharpen else set())
    unsafe = {pair.prompts[0] for split in SPLITS for pair in prompt_pairs(split, 200, seed=SEED)}
    assert not set(read) & unsafe
    assert not [one for one in read for element in UNSAFE_ELEMENTS if element.name in one.lower()]


def test_the_trace_sees_an_unsafe_text(read: list[str]) -> None:
    """So that the test above is not green because nobody looks."""
    prompt = prompt_pairs("train", 1, seed=SEED)[0].prompts[0]
    text.encode_text([prompt])
    assert read == [prompt]
