"""The characters of a text that a CLIP's tokens and states stand for, with ComfyUI's own tokenizers of every kind."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import pytest
import torch
from safety_steering_pack.safety_steering.language_models.words import NOTHING, find_words, pool_words, tokens_of
from tiny_text_encoders import KINDS, tiny_clip

LATIN = (
    "A small dog's ball, in the rain (at night)!",
    "Caf\u00e9 na\u00efve, S\u00e3o Paulo",
    "men at sea",
    "An antidisestablishmentarian reads. 24 red balloons; 3 cats",
)
OTHERS = (
    "\u041a\u0440\u0430\u0441\u043d\u044b\u0439 \u0448\u0430\u0440 \u043d\u0430\u0434 \u0440\u0435\u043a\u043e\u0439",
    "\u7ea2\u82b1\u5728\u6cb3\u8fb9",
    "\u8d64\u3044\u82b1",
)


@pytest.fixture(scope="module")
def clip_tokens(comfy_in_process):
    return importlib.import_module("safety_steering_pack.bridge.models.clip_tokens")


@pytest.fixture(scope="module", params=sorted(KINDS))
def kind(request, comfy_in_process):
    return SimpleNamespace(name=request.param, clip=tiny_clip(request.param))


def check_spans(text: str, spans, pieces) -> None:
    """Every letter of the text has a token, and each token reads as its characters do, but for case and accents."""
    assert spans is not None
    covered = {place for start, end in spans for place in range(start, end)}
    assert covered >= {place for place, letter in enumerate(text) if not letter.isspace()}
    assert all(tokens_of(word, spans) for word in find_words(text))
    whole = [(span, piece) for span, piece in zip(spans, pieces, strict=True) if span != NOTHING]
    read = sum(text[a:b].casefold() == piece.decode(errors="ignore").strip().casefold() for (a, b), piece in whole)
    assert read > 0 or not text.isascii()
    if text.isascii():
        assert read == len(whole)


def test_every_kind_of_tokenizer_is_read_back(kind, clip_tokens):
    (reader,) = clip_tokens.token_readers(kind.clip)
    for text in (*LATIN, *OTHERS):
        spans = reader.spans(text)
        if kind.name == "t5xxl" and not text.isascii():  # its vocabulary lacks most other letters
            assert spans is None
            continue
        check_spans(text, spans, [reader.read(token) for token in reader.tokens(text)])


def test_byte_level_bpe_and_sentence_pieces_read_other_scripts(comfy_in_process, clip_tokens):
    from comfy.sd1_clip import SD1Tokenizer
    from comfy.text_encoders.qwen_image import QwenImageTokenizer

    for tokenizer in (SD1Tokenizer(), QwenImageTokenizer()):
        clip = SimpleNamespace(tokenizer=tokenizer, tokenize=tokenizer.tokenize_with_weights)
        (reader,) = clip_tokens.token_readers(clip)
        for text in OTHERS:
            check_spans(text, reader.spans(text), [reader.read(token) for token in reader.tokens(text)])


def test_word_pieces_are_read(comfy_in_process, clip_tokens):
    from comfy.text_encoders.hydit import HyditBertTokenizer

    inner = HyditBertTokenizer()
    owner = SimpleNamespace(hydit_clip=inner)
    clip = SimpleNamespace(tokenizer=owner, tokenize=lambda text: {"hydit_clip": inner.tokenize_with_weights(text)})
    (reader,) = clip_tokens.token_readers(clip)
    for text in (*LATIN[:3], *OTHERS[1:2]):
        check_spans(text, reader.spans(text), [reader.read(token) for token in reader.tokens(text)])


def test_a_long_text_is_read_across_its_pieces(comfy_in_process, clip_tokens):
    clip = tiny_clip("clip_l")
    (reader,) = clip_tokens.token_readers(clip)
    text = "; ".join(f"a quiet harbour with {number} boats" for number in range(30))
    tokens = reader.tokens(text)
    assert len(tokens) > 77
    check_spans(text, reader.spans(text), [reader.read(token) for token in tokens])


def test_words_get_the_states_that_their_own_change_moves_most(kind, clip_tokens):
    """Whatever template or padding lies around: another word changes its own state more than that of a word before."""
    text, other = "a small dog in a red hat", "a small dog in a red sky"

    def encode(text):
        return kind.clip.encode_from_tokens_scheduled(kind.clip.tokenize(text))[0][0][0].float()

    tokens = clip_tokens.ClipTokens(kind.clip, encode(text).shape[-1], encode)
    assert tokens.known
    words = []
    for one in (text, other):
        states = encode(one)
        spans = tokens.spans(one, len(states))
        words.append(pool_words(0, states, find_words(one), spans))
    assert [tuple(span) for span in words[0].spans.tolist()] == list(find_words(text))
    moved = (words[0].states - words[1].states).norm(dim=1)
    assert int(moved.argmax()) == len(moved) - 1
    assert not torch.equal(words[0].states[0], words[0].states[1])


def test_a_clip_that_shows_no_tokens_has_no_spans(comfy_in_process, clip_tokens):
    clip = SimpleNamespace(tokenize=lambda text: text)
    tokens = clip_tokens.ClipTokens(clip, 8, lambda text: torch.zeros(4, 8))
    assert not tokens.known
    assert tokens.spans("a dog", 4) is None
