"""A text encoder that is already in ComfyUI as a source of directions: hooks on its layer list while it encodes.

It runs through its CLIP object, as for a prompt, so that its weights stay under ComfyUI's memory management. Tokens
that surround every text (a begin token, a chat template, an end token) are found by comparing two probes; they and
padding are left out of the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch

from ...safety_steering.errors import SafetySteeringError
from ...safety_steering.language_models.layer_states import (
    find_layers,
    last_weights,
    mean_weights,
    pooled_states,
    token_weights,
)
from ...safety_steering.language_models.model_files import slug
from ...safety_steering.language_models.source_model import ONE_TOKEN, POOLINGS, Progress, check_request, token_fraction
from ...safety_steering.language_models.words import NOTHING, Span, Words, find_words, join_words, tokens_of
from ..models.clip_tokens import token_readers
from ..models.fingerprints import weights_fingerprint
from ..models.text_encoders import literal

if TYPE_CHECKING:
    from comfy.sd import CLIP

PROBES = ("river", "a small tree")


@dataclass(frozen=True)
class _Frame:
    """Number of tokens before and after every text's own, without padding."""

    before: int
    after: int


@dataclass(frozen=True, eq=False)
class _Pass:
    """An encoder's input: embeddings (pieces, tokens, D) and the mask of tokens that are not padding; on the CPU."""

    embeds: torch.Tensor
    mask: torch.Tensor


class ClipSource:
    """The largest text encoder of a CLIP. Texts are encoded one at a time.

    Raises:
        SafetySteeringError: on construction, if the CLIP holds no encoder with a list of layers.
    """

    def __init__(self, clip: CLIP) -> None:
        self._clip = clip
        self._name, self._encoder = largest_encoder(clip)
        self._layers = find_layers(self._encoder)
        self.name = slug(self._name)

    @property
    def layers(self) -> int:
        return len(self._layers)

    @cached_property
    def width(self) -> int:
        return encoder_width(self._encoder)

    @property
    def poolings(self) -> tuple[str, ...]:
        """With "chat" if more than an end token follows every text."""
        return tuple(name for name in POOLINGS if name != "chat" or self._frame.after > 1)

    @cached_property
    def fingerprint(self) -> str:
        """The `weights_fingerprint` of the encoder."""
        return weights_fingerprint(self._clip.patcher, self._encoder)

    def space(self, layer: int) -> str:
        return f"{self.name}/source.{layer}"

    @contextmanager
    def open(self) -> Iterator[ClipSource]:
        """Does nothing: ComfyUI keeps the encoder while it has memory."""
        yield self

    def states(
        self, texts: Sequence[str], layers: Sequence[int], pooling: str = "mean", progress: Progress | None = None
    ) -> torch.Tensor:
        """As `SourceModel.states`. A long text that the encoder reads in pieces is pooled over all of them."""
        check_request(self, texts, layers, pooling)
        frame = self._frame
        result = torch.empty(len(texts), len(layers), self.width)
        for number, text in enumerate(texts):
            result[number] = self._encode(text, layers, partial(self._weights, frame, pooling, text))
            if progress is not None:
                progress(number + 1, len(texts))
        if not bool(result.isfinite().all()):
            raise SafetySteeringError(f"{self.name} gave states that are not finite. Load it in another precision.")
        return result

    def words(self, texts: Sequence[str], layer: int, progress: Progress | None = None) -> Words:
        """As `SourceModel.words`."""
        check_request(self, texts, [layer], "mean")
        reader = next((one for one in token_readers(self._clip) if self._name in (one.key, f"clip_{one.key}")), None)
        if reader is None:
            raise SafetySteeringError(
                f"{self.name} does not show which tokens a word is made of. Extract with tokens = pooled."
            )
        # the first token is an attention sink of causal models; a token before every text is no part of it anyway
        sink = self._frame.before == 0 and not _bidirectional(self._encoder)
        parts = []
        for number, text in enumerate(texts):
            spans = reader.spans(text) or []
            spans = [NOTHING, *spans[1:]] if sink else spans
            found = [(word, own) for word in find_words(text) if (own := tokens_of(word, spans))]
            parts.append(self._words_of(number, text, layer, found))
            if progress is not None:
                progress(number + 1, len(texts))
        result = join_words(parts)
        if not bool(result.states.isfinite().all()):
            raise SafetySteeringError(f"{self.name} gave states that are not finite. Load it in another precision.")
        return result

    def _words_of(self, number: int, text: str, layer: int, found: Sequence[tuple[Span, list[int]]]) -> Words:
        states = torch.empty(0, self.width)
        if found:

            def weigh(mask: torch.Tensor) -> torch.Tensor:
                """(pieces, words, tokens): a word may lie in two pieces, whose parts are added up."""
                weights = torch.zeros(len(found), mask.numel(), dtype=torch.float64)
                for row, (_, own) in enumerate(found):
                    weights[row, own] = 1 / len(own)
                return weights.reshape(len(found), *mask.shape).transpose(0, 1)

            states = self._encode(text, [layer], weigh)[0]
        spans = torch.tensor([word for word, _ in found], dtype=torch.long).reshape(-1, 2)
        return Words(torch.full((len(found),), number), spans, states)

    def _weights(self, frame: _Frame, pooling: str, text: str, mask: torch.Tensor) -> torch.Tensor:
        """Pooling weights (pieces, tokens) that sum to 1, from the mask of tokens that are not padding."""
        order, counts = mask.long().cumsum(dim=1), mask.sum(dim=1, keepdim=True)
        own = mask & (order > frame.before) & (order <= counts - frame.after)
        if pooling == "chat" or not bool(own.any()):
            own = mask
        tokens = own.reshape(1, -1)
        if pooling == "mean":
            # the first token is an attention sink of causal models; a token before every text is left out already
            weights = mean_weights(tokens, drop_first=frame.before == 0 and not _bidirectional(self._encoder))
        elif pooling == ONE_TOKEN:
            weights = token_weights(tokens, [token_fraction(text)])
        else:
            weights = last_weights(tokens)
        return weights.reshape(mask.shape)

    def _encode(
        self, text: str, layers: Sequence[int], weights: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """Pooled states (layers, D), or (layers, words, D), float32 on the CPU."""
        with (
            self._reading() as passes,
            pooled_states(self._layers, layers, lambda: weights(passes[-1].mask)) as kept,
        ):
            self._run(text)
        missing = [layer for layer in layers if layer not in kept]
        if missing:
            raise SafetySteeringError(
                f"{self.name} encoded a text, but its layer {missing[0]} did not run: another node replaced it. "
                "Connect the CLIP directly from its loader."
            )
        return torch.stack([kept[layer].sum(dim=0).float().cpu() for layer in layers])

    def _run(self, text: str) -> None:
        with torch.no_grad():
            self._clip.encode_from_tokens(self._clip.tokenize(literal(text)))

    @contextmanager
    def _reading(self) -> Iterator[list[_Pass]]:
        """While open, each pass of the encoder appends its input to the list."""
        passes: list[_Pass] = []

        def read(module: torch.nn.Module, args: Any, kwargs: Any) -> None:
            # a copy: T5 adds to its embeddings in place
            passes.append(_Pass(kwargs["embeds"].to("cpu", torch.float32, copy=True), _mask(args, kwargs)))

        handle = self._encoder.register_forward_pre_hook(read, with_kwargs=True)
        try:
            yield passes
        finally:
            handle.remove()

    @cached_property
    def _frame(self) -> _Frame:
        """The equal tokens at both ends of two texts that share no word."""
        tokens = []
        for probe in PROBES:
            with self._reading() as passes:
                self._run(probe)
            tokens.append(passes[-1].embeds[0][passes[-1].mask[0]])
        shorter = min(map(len, tokens))
        before = _equal([bool(torch.equal(*(own[i] for own in tokens))) for i in range(shorter)])
        after = _equal([bool(torch.equal(*(own[-1 - i] for own in tokens))) for i in range(shorter - before)])
        return _Frame(before, after)


def largest_encoder(clip: CLIP) -> tuple[str, torch.nn.Module]:
    """The name and the transformer of a CLIP's widest, then deepest text encoder.

    Raises:
        SafetySteeringError: no encoder has readable layers.
    """
    parts = dict(clip.cond_stage_model.named_children())
    encoders = {name: part.transformer for name, part in parts.items() if hasattr(part, "transformer")}
    readable = {name: encoder for name, encoder in encoders.items() if hasattr(encoder, "get_input_embeddings")}
    if not readable:
        raise SafetySteeringError(
            f"This CLIP ({type(clip.cond_stage_model).__name__}) has no text encoder whose layers can be read. Use a "
            "CLIP, T5 or language model encoder, or a model in models/safety_llms."
        )
    return max(readable.items(), key=lambda item: (encoder_width(item[1]), len(find_layers(item[1]))))


def encoder_width(encoder: torch.nn.Module) -> int:
    """Channels of an encoder's states."""
    return int(encoder.get_input_embeddings().weight.shape[-1])


def _bidirectional(encoder: torch.nn.Module) -> bool:
    """Whether every token attends to every other, as in T5."""
    return hasattr(getattr(encoder, "encoder", None), "block")


def _mask(args: Sequence[Any], kwargs: dict[str, Any]) -> torch.Tensor:
    """Mask (pieces, tokens) of tokens that are not padding; encoders that attend to padding only give their number."""
    given = kwargs.get("attention_mask", args[1] if len(args) > 1 else None)
    embeds = kwargs["embeds"]
    if given is not None:
        return given.reshape(embeds.shape[0], -1).bool().cpu()
    counts = torch.tensor(kwargs.get("num_tokens") or [embeds.shape[1]] * embeds.shape[0])
    return torch.arange(embeds.shape[1])[None] < counts[:, None]


def _equal(found: Sequence[bool]) -> int:
    """Number of leading true values."""
    return found.index(False) if False in found else len(found)
