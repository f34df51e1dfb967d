"""The target of an alignment: a hook point in a model, and the states that it has for benign texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from ...safety_steering.alignment.alignment import AnchorStates
from ...safety_steering.alignment.fit import TargetStates
from ...safety_steering.errors import SafetySteeringError
from ...safety_steering.language_models.source_model import Progress
from ...safety_steering.language_models.words import NOTHING, Span, Words, find_words, join_words, pool_words
from ..sampling.sampling import number_of

MOST_TOKENS = 4096  # of all texts; more of them only take memory


class Target(Protocol):
    """A hook point in a connected model."""

    def key(self) -> Any:
        """Plain data that decides what `states` returns, for the cache."""
        ...

    def states(self, texts: Sequence[str], progress: Progress, words: int = 0) -> TargetStates:
        """The states of texts. progress: called with how many are done, of how many; what it raises ends the run.

        words: of so many of the first texts the words are wanted, too, and tokens of the others, or of all if there are
        no others; a target whose tokens cannot be told apart gives none. 0: no words are wanted.
        """
        ...


class Pooled:
    """Pools states text by text, so that memory does not grow with their length."""

    def __init__(self) -> None:
        self._pooled: list[torch.Tensor] = []
        self._token: list[torch.Tensor] = []
        self._tokens: list[torch.Tensor] = []
        self._words: list[Words] = []

    @property
    def width(self) -> int:
        """D of the states added so far."""
        return len(self._pooled[0])

    def add(self, states: torch.Tensor, rows: torch.Tensor, text: str, spans: Sequence[Span] | None = None) -> None:
        """Add one text's states (1, N, D); rows: (1, N, 1) bool, which of them steering may edit.

        Kept are the mean over these rows and one of them, drawn by the text. spans: the characters of each of the N
        states; if given, the text's words are kept, too.
        """
        kept = states[0][rows[0, :, 0]].to("cpu", torch.float64)
        if not len(kept):
            raise SafetySteeringError(f"The encoder gives no states for '{text[:80]}'. Leave this anchor out.")
        self._pooled.append(kept.mean(dim=0).float())
        self._token.append(kept[number_of(text) % len(kept)].float())
        if spans is not None:
            editable = rows[0, :, 0].tolist()
            own = [span if use else NOTHING for span, use in zip(spans, editable, strict=True)]
            self._words.append(pool_words(len(self._pooled) - 1, states[0].to("cpu"), find_words(text), own))

    def words(self) -> Words | None:
        """The words added so far; None if there are none."""
        return join_words(self._words) if self._words else None

    def add_tokens(self, states: torch.Tensor, rows: torch.Tensor, most: int) -> None:
        """Keep at most `most` tokens of a text, as of `add`, evenly spaced."""
        kept = states[0][rows[0, :, 0]]
        chosen = torch.linspace(0, len(kept) - 1, min(most, len(kept))).round().long()
        self._tokens.append(kept[chosen.to(kept.device)].to("cpu", torch.float32))

    def tokens(self) -> torch.Tensor | None:
        """The tokens (m, D) kept so far; None if there are none."""
        return torch.cat(self._tokens) if self._tokens else None

    def result(self) -> AnchorStates:
        """Everything added so far, in order."""
        return AnchorStates(torch.stack(self._pooled), torch.stack(self._token))
