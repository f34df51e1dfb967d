"""Which reading of a text encoder each conditioning tensor comes from: noted on the tensor, and so on the value.

A tensor that is not noted was made by nobody that the guardrail knows. Core hands conditioning to a sampler run as the
same tensors that its nodes gave.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.weak import WeakTensorKeyDictionary

from ...guardrail.policy import Rule
from ...safety_steering.steering.trace import RunTrace
from .jobs.values import leaves

DEEPEST = 8  # of the lists and mappings that conditioning is made of


@dataclass(frozen=True, eq=False)
class Reading:
    """One prompt that was read, or conditioning that no text encoder of this job read.

    title: the node that read or brought it. rules: those that steered the text encoder while it read. traces: of each
    such rule.
    """

    title: str
    rules: frozenset[Rule] = frozenset()
    traces: tuple[tuple[Rule, RunTrace], ...] = ()


class PromptOrigins:
    """Tensor -> the readings that it comes from; forgotten with the tensor."""

    def __init__(self) -> None:
        self._known = WeakTensorKeyDictionary()

    def clear(self) -> None:
        """Forget everything, as core's cache was."""
        self._known.clear()

    def read(self, result: Any, reading: Reading) -> None:
        """Note every tensor that a text encoder has given."""
        for tensor in tensors_of(result):
            self._known[tensor] = (reading,)

    def derive(self, result: Any, sources: Sequence[Reading]) -> None:
        """Note the conditioning in a node's result that is not known yet."""
        for tensor in prompts_of(result):
            self._known.setdefault(tensor, tuple(sources))

    def of(self, tensors: Iterable[torch.Tensor]) -> tuple[Reading, ...]:
        """The readings that these tensors come from, each once; nothing of those that are not known."""
        return tuple(dict.fromkeys(reading for tensor in tensors for reading in self._known.get(tensor, ())))

    def knows(self, tensor: torch.Tensor) -> bool:
        """Whether it is known where a tensor comes from."""
        return tensor in self._known


def tensors_of(value: Any) -> Iterator[torch.Tensor]:
    """Every tensor in a value, in lists and mappings too."""
    return (leaf for leaf in leaves(value, DEEPEST) if isinstance(leaf, torch.Tensor))


def prompts_of(value: Any) -> Iterator[torch.Tensor]:
    """The tensor of each pair (tensor, mapping) in a value: this is how nodes hand on conditioning."""
    for leaf in leaves(value, DEEPEST):
        pair = isinstance(leaf, list | tuple) and len(leaf) == 2 and isinstance(leaf[1], Mapping)
        if pair and isinstance(leaf[0], torch.Tensor):
            yield leaf[0]
