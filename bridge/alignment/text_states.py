"""The targets behind a text encoder, `conditioning`, what the diffusion model receives, and inside, `encoder_layer`.

For `conditioning` a CLIP is enough if its states reach the model unchanged and its class determines the space. The
MODEL is needed if it changes them first, which is tested on the first anchor, or to determine the space.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from comfy.model_management import throw_exception_if_processing_interrupted

from ...safety_steering.alignment.alignment import AnchorStates, Side
from ...safety_steering.alignment.fit import TargetStates
from ...safety_steering.errors import MismatchError, SafetySteeringError
from ...safety_steering.hook_point import HookPoint
from ...safety_steering.language_models.source_model import ONE_TOKEN, Progress
from ..language_models.clip_source import ClipSource
from ..language_models.encoder_fit import encoder_of
from ..models.clip_tokens import ClipTokens
from ..models.fingerprints import clip_key, digest, patcher_key
from ..models.model_map import patcher_shape
from ..models.text_encoders import encoder_family, literal
from ..sampling.sampling import Conditioning, encode_prompt
from .model_reader import ModelReader, States, find_part, part_space, read_conditioning, small_latent
from .target import MOST_TOKENS, Pooled

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP

HOOK_POINT = "conditioning"
SHARD = 32  # texts encoded before the model reads them, so that the two do not swap places in memory for each text
REWORKED = "The model reworks the prompt before its blocks; the states are those it makes."


class TextStates:
    """Target `conditioning`: the states of a CLIP, or of a CLIP and a MODEL.

    Raises:
        MismatchError: on construction, if there is no CLIP or the family has no such space.
    """

    def __init__(
        self,
        clip: CLIP | None,
        model: ModelPatcher | None = None,
        space: str = "auto",
        latent: dict[str, Any] | None = None,
        template: Conditioning | None = None,
    ) -> None:
        if clip is None:
            raise MismatchError("The target conditioning needs your model's text encoder. Connect it to clip.")
        self._clip, self._template, self._space, self._model = clip, template, space, model
        self._reader = None
        if model is not None:
            self._reader = ModelReader(model, HOOK_POINT, space, latent or small_latent(model, template))
        self._family = self._reader.family if self._reader else encoder_family(clip)
        self._part = find_part(self._family, HOOK_POINT, space)
        self._state = self._family.states[HOOK_POINT][self._part]

    def key(self) -> Any:
        """As of `Target`."""
        model = None if self._model is None else patcher_key(self._model)
        return [HOOK_POINT, self._space, self._family.name, clip_key(self._clip), model, digest(self._template)]

    def states(self, texts: Sequence[str], progress: Progress, words: int = 0) -> TargetStates:
        """As of `Target`."""
        pooled, reworked, tokens = Pooled(), False, None
        of_tokens = range(words if words < len(texts) else 0, len(texts)) if words else range(0)
        most = -(-MOST_TOKENS // max(1, len(of_tokens)))
        for start in range(0, len(texts), SHARD):
            shard = texts[start : start + SHARD]
            encoded = [self._encode(text, start + i, len(texts), progress) for i, text in enumerate(shard)]
            if start == 0:
                reworked = self._reworks(encoded[0])
                tokens = self._tokens(encoded[0], reworked) if words else None
            for number, (text, one) in enumerate(zip(shard, encoded, strict=True), start):
                throw_exception_if_processing_interrupted()
                states, rows = self._read(one, reworked)
                spans = tokens.spans(text, states.shape[1]) if tokens and tokens.known and number < words else None
                pooled.add(states, rows, text, spans)
                if number in of_tokens:
                    pooled.add_tokens(states, rows, most)
        space = part_space(self._family, HOOK_POINT, self._part, pooled.width)
        side = Side(HOOK_POINT, space, name=self._name())
        notes = (REWORKED,) if reworked else ()
        return TargetStates(pooled.result(), side, notes, words=pooled.words(), tokens=pooled.tokens())

    def _tokens(self, encoded: Conditioning, reworked: bool) -> ClipTokens:
        def encode(text: str) -> torch.Tensor:
            states, _ = self._read(encode_prompt(self._clip, literal(text), self._template), reworked)
            return states[0].to("cpu", torch.float32)

        return ClipTokens(self._clip, self._read(encoded, reworked)[0].shape[-1], encode)

    def _encode(self, text: str, done: int, total: int, progress: Progress) -> Conditioning:
        throw_exception_if_processing_interrupted()
        progress(done, total)
        return encode_prompt(self._clip, literal(text), self._template)

    def _read(self, encoded: Conditioning, reworked: bool) -> States:
        if reworked:
            assert self._reader is not None
            return self._reader.read(encoded)
        model = None if self._model is None else self._model.model.diffusion_model
        return read_conditioning(encoded, self._state, model)

    def _reworks(self, encoded: Conditioning) -> bool:
        """Whether the model receives other states than the CLIP gave."""
        if self._reader is None:
            return False
        received, rows = self._reader.read(encoded)
        if self._state.argument != "c_crossattn":
            return True
        given, given_rows = self._read(encoded, False)
        if given.shape != received.shape:
            return True
        return not (torch.equal(given_rows.cpu(), rows) and torch.allclose(given.float().cpu(), received.float()))

    def _name(self) -> str:
        if self._model is not None:
            return patcher_shape(self._model).name
        return type(self._clip.cond_stage_model).__name__


class EncoderLayer:
    """Target `encoder_layer`: the states after one layer of a CLIP's largest encoder, at `encoder.<layer>`.

    depth: 0 is the first layer, 1 the last.

    Raises:
        SafetySteeringError: on construction, if there is no CLIP.
    """

    def __init__(self, clip: Any, depth: float) -> None:
        if clip is None:
            raise SafetySteeringError("The target encoder_layer needs your model's text encoder. Connect it to clip.")
        self._clip, self._source, self._encoder = clip, ClipSource(clip), encoder_of(clip)
        self._layer = 1 + round(depth * (self._source.layers - 1))

    def key(self) -> Any:
        """As of `Target`."""
        return ["encoder_layer", self._encoder.space(self._layer), clip_key(self._clip)]

    def states(self, texts: Sequence[str], progress: Progress, words: int = 0) -> TargetStates:
        """As of `Target`, without words: the mean over a text's own tokens, and one of them."""

        def step(done: int, total: int) -> None:
            throw_exception_if_processing_interrupted()
            progress(done // 2, total)

        pooled = self._source.states(texts, [self._layer], "mean", step)[:, 0]
        token = self._source.states(texts, [self._layer], ONE_TOKEN, step)[:, 0]
        side = Side(
            HookPoint(f"encoder.{self._layer}"),
            self._encoder.space(self._layer),
            name=self._encoder.name,
            weight_fingerprint=self._source.fingerprint,
        )
        return TargetStates(AnchorStates(pooled, token), side)
