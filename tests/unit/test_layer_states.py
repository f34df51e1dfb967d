"""Pooling in the layers: what is read is what the layers gave, whatever the padding holds and whatever comes after."""

from __future__ import annotations

import math

import pytest
import torch
from safety_steering_pack.safety_steering.errors import SafetySteeringError
from safety_steering_pack.safety_steering.language_models.layer_states import (
    find_layers,
    last_weights,
    mean_weights,
    pool,
    pooled_states,
    token_weights,
)

MASK = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 0], [0, 0, 0, 1, 0]]).bool()


class Layer(torch.nn.Module):
    """Adds 1 in place, as some encoders do, and returns a tuple or the tensor alone."""

    def __init__(self, alone: bool) -> None:
        super().__init__()
        self.alone = alone

    def forward(self, x, mask=None):
        x += 1
        return x if self.alone else (x, None)


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.vision_tower = torch.nn.ModuleList(Layer(True) for _ in range(9))
        self.inner = torch.nn.Module()
        self.inner.layers = torch.nn.ModuleList(Layer(i % 2 == 0) for i in range(3))
        self.inner.layers[0].experts = torch.nn.ModuleList(torch.nn.Identity() for _ in range(20))
        self.heads = torch.nn.ModuleList([torch.nn.Identity()])

    def forward(self, x):
        for layer in self.inner.layers:
            x = layer(x=x, mask=None)
            x = x[0] if isinstance(x, tuple) else x
        return x


def test_the_layers_are_the_longest_list_that_is_no_towers_and_in_no_layer():
    model = Model()
    assert find_layers(model) is model.inner.layers
    with pytest.raises(SafetySteeringError, match="Linear has no list of layers"):
        find_layers(torch.nn.Linear(1, 1))


def test_states_are_pooled_before_a_later_layer_overwrites_them():
    model, weights = Model(), mean_weights(torch.ones(2, 4).bool(), drop_first=False)
    with pooled_states(model.inner.layers, [0, 1, 3], lambda: weights) as kept:
        model(torch.zeros(2, 4, 5))
        assert {number: float(states.unique()) for number, states in kept.items()} == {0: 0.0, 1: 1.0, 3: 3.0}
    assert all(not layer._forward_hooks and not layer._forward_pre_hooks for layer in model.inner.layers)


def test_no_hook_is_left_after_an_error():
    model = Model()
    with pytest.raises(ZeroDivisionError), pooled_states(model.inner.layers, [0, 2], lambda: 1 / 0):
        model(torch.zeros(1, 2, 3))
    assert all(not layer._forward_hooks and not layer._forward_pre_hooks for layer in model.inner.layers)


def test_the_mean_leaves_out_padding_at_either_end_and_the_first_token():
    assert mean_weights(MASK, drop_first=True).tolist() == [
        [0, 0, 0, 1 / 2, 1 / 2],
        [0, 1 / 3, 1 / 3, 1 / 3, 0],
        [0, 0, 0, 1, 0],  # an only token is kept
    ]
    assert mean_weights(MASK, drop_first=False)[1].tolist() == [1 / 4] * 4 + [0]


def test_one_token_is_the_last_or_one_by_its_place():
    assert last_weights(MASK).argmax(dim=1).tolist() == [4, 3, 3]
    assert last_weights(MASK).sum(dim=1).tolist() == [1, 1, 1]
    for places, numbers in (([0.0] * 3, [3, 1, 3]), ([0.99] * 3, [4, 3, 3]), ([0.5] * 3, [4, 2, 3])):
        assert token_weights(MASK, places).argmax(dim=1).tolist() == numbers


def test_what_padding_holds_does_not_matter():
    states = torch.randn(3, 5, 2)
    dirty = states.masked_fill(~MASK[..., None], math.nan)
    weights = mean_weights(MASK, drop_first=False)
    assert torch.equal(pool(dirty, weights), pool(states, weights))
    assert pool(states.half(), weights).dtype == torch.float32
    assert pool(states.double(), weights).dtype == torch.float64
