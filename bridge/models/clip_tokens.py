"""Which characters of a text each state of a CLIP stands for, by what the CLIP's own tokens read as.

ComfyUI's tokenizers add begin and end tokens, padding and chat templates, cut long texts into pieces, and encoders cut
templates off again. So tokens are read back as text (`token_spans`), and states are matched to tokens: one to one where
there are as many; with the states at the end where another encoder's come first (SD3's T5). Where an encoder left out
some, two texts that begin alike tell how many: a causal encoder's states differ from the token on where the texts do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...safety_steering.language_models.words import NOTHING, Span, piece_reader, token_spans
from .text_encoders import literal

PROBES = ("a small red river", "a small red house")
CLOSE = 1e-3  # relative change of a state that is none


@dataclass(frozen=True, eq=False)
class TokenReader:
    """One of a CLIP's tokenizers. key: of its tokens. width: of its states. read: as of `piece_reader`."""

    clip: Any
    key: str
    width: int
    read: Callable[[int], bytes]

    def tokens(self, text: str) -> list[int]:
        """Every token of a text, of all its pieces; -1 for what is not a number, such as an image."""
        pieces = self.clip.tokenize(literal(text))[self.key]
        return [int(token[0]) if isinstance(token[0], int) else -1 for piece in pieces for token in piece]

    def spans(self, text: str) -> list[Span] | None:
        """The characters of a text that each token stands for, as of `token_spans`."""
        return token_spans(text, [self.read(token) for token in self.tokens(text)])


class ClipTokens:
    """The tokens of a CLIP for texts whose states are `width` wide.

    encode: the states (N, width) of a text, as they are to be matched.
    """

    def __init__(self, clip: Any, width: int, encode: Callable[[str], torch.Tensor]) -> None:
        states = [encode(text) for text in PROBES]
        self._reader = _choose(token_readers(clip), width, len(states[0]))
        self._exact = self._reader is not None and self._reader.width == width
        self._skipped = self._left_out(states)

    @property
    def known(self) -> bool:
        """Whether states can be matched to tokens at all."""
        return self._skipped is not None

    def spans(self, text: str, states: int) -> list[Span] | None:
        """The characters of a text that each of its N states stands for; None if they cannot be told."""
        found = None if self._reader is None or self._skipped is None else self._reader.spans(text)
        if found is None:
            return None
        assert self._skipped is not None
        first = self._skipped
        placed = [NOTHING] * max(0, -first) + found[max(0, first) :]
        return (placed + [NOTHING] * states)[:states]

    def _left_out(self, states: Sequence[torch.Tensor]) -> int | None:
        """How many of the first tokens have no state; below 0, how many states come before the first token's."""
        if self._reader is None:
            return None
        tokens = [self._reader.tokens(text) for text in PROBES]
        count = len(states[0])
        if len(tokens[0]) == count:
            return 0
        changed = _first([a != b for a, b in zip(*tokens, strict=False)])
        shorter = min(map(len, states))
        apart = (states[0][:shorter] - states[1][:shorter]).norm(dim=1)
        moved = _first((apart > CLOSE * states[0][:shorter].norm(dim=1)).tolist())
        if moved:  # causal: equal before the first token that differs
            return changed - moved
        return len(tokens[0]) - count if self._exact and len(tokens[0]) < count else None


def token_readers(clip: Any) -> list[TokenReader]:
    """The tokenizers of a CLIP that can be read."""
    tokens = clip.tokenize(PROBES[0])
    owner = getattr(clip, "tokenizer", None)
    if not isinstance(tokens, Mapping) or owner is None:
        return []
    found = []
    for key, pieces in tokens.items():
        inner = next((vars(owner)[name] for name in (key, f"clip_{key}") if name in vars(owner)), None)
        pieces_read = getattr(inner, "inv_vocab", None)
        if pieces and isinstance(pieces_read, Mapping):
            special = {getattr(inner, name, None) for name in ("start_token", "end_token")}
            vocabulary = {piece: number for number, piece in pieces_read.items()}
            read = piece_reader(vocabulary, {number for number in special if isinstance(number, int)})
            found.append(TokenReader(clip, key, int(getattr(inner, "embedding_size", 0)), read))
    return found


def _choose(readers: Sequence[TokenReader], width: int, states: int) -> TokenReader | None:
    """The tokenizer whose encoder's states are so wide, else one with as many tokens as there are states of the first
    probe, else the first: encoders side by side read the same tokens."""
    by_width = [one for one in readers if one.width == width]
    by_count = [one for one in readers if len(one.tokens(PROBES[0])) == states]
    return next(iter((*by_width, *by_count, *readers)), None)


def _first(found: Sequence[bool]) -> int:
    """The number of the first true value; of all of them if there is none."""
    return found.index(True) if True in found else len(found)
