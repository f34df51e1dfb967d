"""Words of a text and the tokens that they are made of, so that the words of any two tokenizers can be paired.

Tokenizers cut a text at different places, but all of them read the same characters. A word is a stretch of letters; a
script without spaces between its words is cut into single characters. A token belongs to a word if they share a
character, and a word's state is the mean over its tokens.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch

Span = tuple[int, int]  # first character and the one after the last
NOTHING: Span = (0, 0)  # of a token that no character of the text went into
# kana and Chinese characters one by one; else letters, with an apostrophe between them
_WORD = re.compile(r"[぀-ヿ㐀-䶿一-鿿豈-﫿]|[^\W\d_぀-ヿ㐀-䶿一-鿿]+(?:['’][^\W\d_]+)*")


@dataclass(frozen=True, eq=False)
class Words:
    """Words of some texts with their states.

    texts: (m,) long, the number of each word's text. spans: (m, 2) long, its characters there. states: (m, D) float32.
    """

    texts: torch.Tensor
    spans: torch.Tensor
    states: torch.Tensor

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def keys(self) -> list[tuple[int, int, int]]:
        """(text, first character, character after the last) of each word."""
        return [(int(text), int(a), int(b)) for text, (a, b) in zip(self.texts, self.spans, strict=True)]

    def fit(self, texts: Sequence[str], width: int) -> bool:
        """Whether they are words of these texts, with states of this width, and there are some."""
        count = len(self)
        shapes = tuple(self.texts.shape), tuple(self.spans.shape), tuple(self.states.shape)
        if not count or shapes != ((count,), (count, 2), (count, width)):
            return False
        lengths = [len(text) for text in texts]
        return all(0 <= text < len(lengths) and 0 <= start < end <= lengths[text] for text, start, end in self.keys)

    def at(self, rows: Sequence[int]) -> Words:
        """Some of them, in this order."""
        chosen = torch.as_tensor(rows, dtype=torch.long)
        return Words(self.texts[chosen], self.spans[chosen], self.states[chosen])

    def among(self, texts: Sequence[int]) -> Words:
        """Those of some texts, which are counted anew in the order given."""
        number = {old: new for new, old in enumerate(texts)}
        rows = [row for row, text in enumerate(self.texts.tolist()) if text in number]
        own = self.at(rows)
        return Words(torch.tensor([number[text] for text in own.texts.tolist()]).long(), own.spans, own.states)


def find_words(text: str) -> tuple[Span, ...]:
    """The words of a text, in its order.

    Example:
        >>> from safety_steering.language_models.words import find_words
        >>> [f"A dog's 2 bones, 红花"[a:b] for a, b in find_words("A dog's 2 bones, 红花")]
        ['A', "dog's", 'bones', '红', '花']
    """
    return tuple(found.span() for found in _WORD.finditer(text))


def word_of(text: str, span: Span) -> str:
    """A word as words are compared: without case."""
    return text[span[0] : span[1]].casefold()


def tokens_of(word: Span, tokens: Sequence[Span]) -> list[int]:
    """The numbers of the tokens that share a character with a word; tokens: the characters of each."""
    return [i for i, (start, end) in enumerate(tokens) if start < end and start < word[1] and end > word[0]]


def pool_words(text: int, states: torch.Tensor, spans: Sequence[Span], tokens: Sequence[Span]) -> Words:
    """The words of one text; those without a token are left out.

    Args:
        text: its number. states: (N, D), one row a token. spans: its words. tokens: the characters of each of the N
            tokens; `NOTHING` for one that is not to count.
    """
    found = [(span, own) for span in spans if (own := tokens_of(span, tokens))]
    pooled = [states[own].double().mean(dim=0).float() for _, own in found]
    return Words(
        torch.full((len(found),), text, dtype=torch.long),
        torch.tensor([span for span, _ in found], dtype=torch.long).reshape(-1, 2),
        torch.stack(pooled).cpu() if pooled else torch.empty(0, states.shape[-1]),
    )


def join_words(parts: Sequence[Words]) -> Words:
    """The words of several texts as one; there is at least one part."""
    return Words(*(torch.cat([getattr(part, name) for part in parts]) for name in ("texts", "spans", "states")))


def pair_words(source: Words, target: Words) -> tuple[list[int], list[int]]:
    """Rows of the words that both have, the same text and characters, in the source's order."""
    rows = {key: row for row, key in enumerate(target.keys)}
    pairs = [(row, rows[key]) for row, key in enumerate(source.keys) if key in rows]
    return [own for own, _ in pairs], [other for _, other in pairs]


_Form = Callable[[str], str]


def _bare(text: str) -> str:
    """Without case and accents."""
    return "".join(one for one in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(one))


_FORMS: tuple[_Form, ...] = (
    str,
    lambda text: unicodedata.normalize("NFC", text),
    lambda text: unicodedata.normalize("NFC", text.lower()),
    lambda text: unicodedata.normalize("NFKC", text),
    lambda text: unicodedata.normalize("NFKC", text).lower(),
    _bare,
)


def token_spans(text: str, pieces: Sequence[bytes]) -> list[Span] | None:
    """The characters of a text that each token stands for, from what the tokens read as.

    Args:
        pieces: the UTF-8 bytes of each token, those of a template around the text too; empty for special tokens. A
            token may hold a part of a character.

    Returns:
        one span a token, `NOTHING` for tokens outside of the text; None if the tokens do not read as the text, which a
        tokenizer may have changed: an unknown character, a text cut off.

    Tokenizers drop spaces and may fold case, compose or take off accents. The text is tried as written, then in each of
    these forms; spaces count for neither side.
    """
    bare = [b"".join(piece.split()) for piece in pieces]
    read = b"".join(bare)
    for form in _FORMS:
        letters = _letters(text, form)
        wanted = b"".join(letter for letter, _ in letters)
        start = read.find(wanted) if wanted else -1
        if start < 0:
            continue
        owners = [span for letter, span in letters for _ in letter]
        spans, at = [], -start
        for piece in bare:
            own = owners[max(at, 0) : max(at + len(piece), 0)]
            spans.append((own[0][0], own[-1][1]) if own else NOTHING)
            at += len(piece)
        return spans
    return None


def _letters(text: str, form: _Form) -> list[tuple[bytes, Span]]:
    """What each character of a text, with the marks that combine with it, becomes in a form."""
    found: list[tuple[bytes, Span]] = []
    start = 0
    for end in range(1, len(text) + 1):
        if end < len(text) and unicodedata.combining(text[end]):
            continue
        found.append((b"".join(form(text[start:end]).encode().split()), (start, end)))
        start = end
    return found


def piece_reader(vocabulary: Mapping[str, int], special: Collection[int] = ()) -> Callable[[int], bytes]:
    """What a token reads as, in UTF-8, by a tokenizer's vocabulary; nothing for unknown tokens.

    The three kinds in use are told apart by the mark that most pieces have: SentencePiece puts "▁" for a space and
    <0xE4> for a byte, byte-level BPE writes each byte as a letter ("Ġ" for a space; CLIP ends words with "</w>"),
    WordPiece begins the rest of a word with "##".

    special: tokens that stand for no text, such as the end of a prompt.
    """
    pieces = {number: piece for piece, number in vocabulary.items()}
    kinds = {
        _sentence_piece: sum(piece.startswith("▁") for piece in vocabulary),
        _byte_level: sum(piece.startswith("Ġ") or piece.endswith("</w>") for piece in vocabulary),
        _word_piece: sum(piece.startswith("##") for piece in vocabulary),
    }
    decode = max(kinds, key=lambda kind: kinds[kind])

    def read(token: int) -> bytes:
        return b"" if token in special else decode(pieces.get(token, ""))

    return read


def _sentence_piece(piece: str) -> bytes:
    byte = re.fullmatch(r"<0x([0-9A-F]{2})>", piece)
    return bytes([int(byte[1], 16)]) if byte else piece.replace("▁", " ").encode()


def _byte_level(piece: str) -> bytes:
    letters = piece.removesuffix("</w>")
    if not all(letter in _BYTES for letter in letters):  # a special token, written as it is
        return letters.encode()
    return bytes(_BYTES[letter] for letter in letters)


def _word_piece(piece: str) -> bytes:
    return piece.removeprefix("##").encode()


def _byte_letters() -> dict[str, int]:
    """The letter of each byte in byte-level BPE: printable Latin-1 as it is, the others from U+0100 on (GPT-2)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTES = _byte_letters()
