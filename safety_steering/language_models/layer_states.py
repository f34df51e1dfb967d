"""Reading a transformer's layers: hooks on its layer list that pool each text's tokens while the model runs.

    pooled_b = sum_n w_bn h_bn

A pooling is a weight matrix w (batch, tokens): 1 / n on each of a text's n tokens for the mean, 1 on one token to pick
it, 0 on padding. For several states of a text, such as its words, w is (batch, words, tokens). States are pooled inside
the hook, since later layers may overwrite them in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from ..errors import SafetySteeringError

_OTHER_TOWERS = ("vision", "visual", "audio")


def find_layers(model: torch.nn.Module) -> torch.nn.ModuleList:
    """A language model's transformer layers: its longest outermost module list, vision and audio towers excluded.

    Raises:
        SafetySteeringError: the model has no such list.
    """
    found = list(_lists(model))
    if not found:
        raise SafetySteeringError(f"{type(model).__name__} has no list of layers to read. Choose a language model.")
    return max(found, key=len)


def _lists(module: torch.nn.Module) -> Iterator[torch.nn.ModuleList]:
    """Module lists, outermost only: a layer may hold a longer list of experts."""
    for name, child in module.named_children():
        if any(word in name for word in _OTHER_TOWERS):
            continue
        if isinstance(child, torch.nn.ModuleList):
            yield child
        else:
            yield from _lists(child)


class Enough(Exception):
    """Ends a forward pass after the last layer that was wanted."""


@contextmanager
def pooled_states(
    layers: torch.nn.ModuleList, wanted: Sequence[int], weights: Callable[[], torch.Tensor], *, stop: bool = False
) -> Iterator[Mapping[int, torch.Tensor]]:
    """While open, each forward pass leaves the pooled states (batch, D) of the wanted layers in the mapping.

    wanted: k is the output of layer k, counted from 1; 0 is the input of the first. weights: returns the
    weights (batch, tokens) of the running pass, or (batch, words, tokens) for states (batch, words, D). Pooled in
    float32 (float64 for a float64 model), on the model's device. stop: raise Enough after the last of them, for callers
    that need nothing more of the pass.
    """
    kept: dict[int, torch.Tensor] = {}

    def keep(number: int, states: torch.Tensor) -> None:
        kept[number] = pool(states, weights())

    def before(module: torch.nn.Module, args: Any, kwargs: Any) -> None:
        keep(0, next(value for value in (*args, *kwargs.values()) if torch.is_tensor(value) and value.ndim == 3))

    def after(number: int) -> Callable[..., None]:
        def look(module: Any, args: Any, output: Any) -> None:
            keep(number, output[0] if isinstance(output, tuple) else output)
            if stop and number == max(wanted):
                raise Enough

        return look

    handles = []
    try:
        for number in sorted(set(wanted)):
            if number == 0:
                handles.append(layers[0].register_forward_pre_hook(before, with_kwargs=True))
            else:
                handles.append(layers[number - 1].register_forward_hook(after(number)))
        yield kept
    finally:
        for handle in handles:
            handle.remove()


def pool(states: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted sums (batch, D) of states (batch, tokens, D), or (batch, words, D) for weights (batch, words, tokens).

    States of weight 0 may be NaN.
    """
    weights = weights.to(torch.promote_types(states.dtype, torch.float32)).to(states.device)
    unused = (weights == 0) if weights.ndim == 2 else (weights == 0).all(dim=1)
    clean = states.to(weights.dtype).masked_fill(unused[..., None], 0)
    return torch.einsum("b...n,bnd->b...d", weights, clean)


def mean_weights(mask: torch.Tensor, drop_first: bool) -> torch.Tensor:
    """Weights of the mean over a text's tokens; mask (batch, tokens) bool, padding at either end.

    drop_first: leave out each text's first token, an attention sink in language models, unless it is the only one.
    """
    order = mask.long().cumsum(dim=1)
    alone = mask.sum(dim=1, keepdim=True) <= 1
    kept = (mask & ((order > 1) | alone)) if drop_first else mask
    return kept.double() / kept.sum(dim=1, keepdim=True).clamp_min(1)


def last_weights(mask: torch.Tensor) -> torch.Tensor:
    """Weights that pick each text's last token."""
    order = mask.long().cumsum(dim=1)
    return (mask & (order == mask.sum(dim=1, keepdim=True))).double()


def token_weights(mask: torch.Tensor, fractions: Sequence[float]) -> torch.Tensor:
    """Weights that pick one token a text by its `token_fraction`; the first token only if it is the only one."""
    counts = mask.sum(dim=1)
    numbers = [
        1 if count <= 1 else 2 + int(fraction * (count - 1))
        for count, fraction in zip(counts.tolist(), fractions, strict=True)
    ]
    order = mask.long().cumsum(dim=1)
    return (mask & (order == torch.tensor(numbers, device=mask.device)[:, None])).double()


def word_weights(words: Sequence[Sequence[Sequence[int]]], mask: torch.Tensor) -> torch.Tensor:
    """Weights (batch, most words, tokens) of the mean over each word's tokens; mask (batch, tokens) bool.

    words: for each text the token numbers of each of its words, counted without padding, which may be at either end.
    """
    weights = torch.zeros(len(words), max(map(len, words)), mask.shape[1], dtype=torch.float64)
    for row, own in enumerate(words):
        places = mask[row].nonzero()[:, 0]
        for number, tokens in enumerate(own):
            weights[row, number, places[list(tokens)]] = 1 / len(tokens)
    return weights
