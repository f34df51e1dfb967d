"""Which of the tokens that a text encoder reads are the prompt's own: no padding, no begin, end or template tokens.

The tokens around every text are found by comparing what the tokenizer makes of texts that share no word. A text of
another node's own template is compared with texts in that template (`SteeredClip.tokenize`); where no template is
known, all of a text counts as its own, so that nothing unsafe is left out.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

PROBES = ("river", "a small tree", "Quick music!", "5 dogs")
OBJECT = "object"  # an image or an embedding among the tokens

Pieces = Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Frame:
    """The tokens before and after every text, without padding."""

    before: tuple[Any, ...]
    after: tuple[Any, ...]


def find_frames(tokenize: Callable[[str], Any], pad: Any) -> frozenset[Frame]:
    """The frame that a tokenizer puts around texts, one for each encoder that it makes tokens for."""
    read = [tokenize(probe) for probe in PROBES]
    if not all(isinstance(tokens, Mapping) for tokens in read):
        return frozenset()
    frames = set()
    for key in read[0]:
        try:
            texts = [_trimmed([_plain(token[0]) for token in tokens[key][0]], pad) for tokens in read]
        except (TypeError, IndexError, KeyError):  # no list of pieces of tokens, such as a song's settings
            continue
        before = _shared(texts)
        after = _shared([text[len(before) :][::-1] for text in texts])[::-1]
        frames.add(Frame(tuple(before), tuple(after)))
    return frozenset(frames)


def own_tokens(piece: Sequence[Any], length: int, width: int, pad: Any, frames: Iterable[Frame]) -> torch.Tensor:
    """Which positions of an encoder's input are the text's own tokens: (length,) boolean.

    Args:
        piece: tokens as core gives them to an encoder: numbers, and objects that become embeddings.
        length: positions of the input; an image takes several of them.
        width: channels of an embedding; of one that is not as wide, core keeps padding at the end alone.
    """
    tokens = [_plain(token) for token in piece]
    first = next((place for place, token in enumerate(tokens) if token != pad), len(tokens))
    text = _trimmed(tokens, pad)
    before, after = max(
        ((_equal(text, frame.before), _equal(text[::-1], frame.after[::-1])) for frame in frames),
        key=sum,
        default=(0, 0),
    )
    start, end = first + before, first + len(text) - min(after, len(text) - before)
    sizes = [_size(token, width) for token in piece]
    lost = sum(_positions(token) for token, size in zip(piece, sizes, strict=True) if size == 0)
    unknown = length - lost - sum(size or 0 for size in sizes)
    images = sum(size is None for size in sizes)
    sizes = [unknown // images if size is None else size for size in sizes]
    stop = length - lost - sum(sizes[end:])
    mask = torch.zeros(length, dtype=torch.bool)
    mask[stop - sum(sizes[start:end]) : stop] = True
    return mask


def _plain(token: Any) -> Any:
    return int(token) if isinstance(token, numbers.Integral) else OBJECT


def _trimmed(tokens: Sequence[Any], pad: Any) -> list[Any]:
    """Tokens without the padding at both ends."""
    kept = [place for place, token in enumerate(tokens) if token != pad]
    return list(tokens[kept[0] : kept[-1] + 1]) if kept else []


def _shared(texts: Sequence[Sequence[Any]]) -> list[Any]:
    """The tokens with which all texts begin."""
    shared = []
    for column in zip(*texts, strict=False):
        if len(set(column)) > 1:
            break
        shared.append(column[0])
    return shared


def _equal(text: Sequence[Any], known: Sequence[Any]) -> int:
    """With how many tokens of `known` a text begins."""
    for count, (one, other) in enumerate(zip(text, known, strict=False)):
        if one != other:
            return count
    return min(len(text), len(known))


def _size(token: Any, width: int) -> int | None:
    """Positions that a token takes: 1 for a number, those of an embedding, 0 of one that core drops; None: unknown."""
    if isinstance(token, numbers.Integral):
        return 1
    data = _data(token)
    if data is None:
        return None
    return int(data.numel()) // width if data.shape[-1] == width else 0


def _positions(token: Any) -> int:
    data = _data(token)
    return 0 if data is None else int(data.numel()) // int(data.shape[-1])


def _data(token: Any) -> torch.Tensor | None:
    """The values of an embedding; None for an image, whose positions the encoder decides."""
    if isinstance(token, Mapping):
        token = token.get("data") if token.get("type") == "embedding" else None
    return token if isinstance(token, torch.Tensor) else None
