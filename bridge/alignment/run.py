"""Fit Benign Alignment: from what is connected and the settings to an alignment, or to the one in the cache."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import comfy.utils
import torch
from comfy.model_management import throw_exception_if_processing_interrupted

from ...safety_steering.alignment.alignment import Alignment, AnchorStates
from ...safety_steering.alignment.file import load_alignment, save_alignment
from ...safety_steering.alignment.fit import TargetStates, fit_checked, source_hook_point, texts_sha256
from ...safety_steering.alignment.maps import AlignmentSettings
from ...safety_steering.alignment.sharpen import MIN_BENIGN
from ...safety_steering.directions.portable import ANCHOR_WORDS
from ...safety_steering.directions.word_directions import choose_anchor_words
from ...safety_steering.errors import MismatchError, SafetySteeringError
from ...safety_steering.hook_point import HookPoint
from ...safety_steering.language_models.words import Words
from ...safety_steering.prompts.prompt_set import PromptSet
from ...safety_steering.vectors.vector import SafetyVector
from ..cache import alignment_paths, read_first, write_first
from .block_states import BlockChoice, BlockStates
from .image_states import ImageStates
from .target import Target
from .text_states import EncoderLayer, TextStates

TARGETS = ("conditioning", "encoder_layer", "clip_vision", "blocks")
CONTENT_VERSION = 3  # raised when the same inputs would give another alignment


@dataclass(frozen=True, eq=False)
class Inputs:
    """What is connected to the node; None for what is not.

    llm: a SourceModel. anchors: only their safe prompts are read. benign: prompts in the style that the target is used
    with; only the target reads their safe prompts.
    """

    vector: SafetyVector
    llm: Any = None
    clip: Any = None
    model: Any = None
    clip_vision: Any = None
    anchors: PromptSet | None = None
    images: torch.Tensor | None = None
    latent: dict[str, Any] | None = None
    template: Any = None
    benign: PromptSet | None = None

    @property
    def hook_point(self) -> HookPoint:
        """The vector's hook point in its language model."""
        return source_hook_point(self.vector)


def align(
    inputs: Inputs,
    choice: Mapping[str, Any],
    settings: AlignmentSettings,
    warn: Callable[[str], None] = logging.warning,
) -> Alignment:
    """The alignment of the vector's space with the chosen target, fitted or from the cache.

    choice: "target", one of TARGETS, and its settings by name. warn: told that the fit cannot be kept.

    Raises:
        SafetySteeringError: an input is missing, inputs do not belong together, or an anchor is unsafe.
    """
    if inputs.vector.info.kind != "source":
        raise MismatchError(
            f"This vector is {inputs.vector.info.kind}: it already lives in a model, and needs no alignment. "
            "Fit Benign Alignment is for portable vectors, made from a language model."
        )
    texts = anchor_texts(inputs)
    target = choose_target(choice, inputs, settings.seed)
    benign = benign_texts(inputs, choice["target"])
    paths = alignment_paths(_content_hash(inputs, (texts, benign), target, settings))
    if (found := read_first(paths, load_alignment)) is not None:
        return found
    source = source_states(inputs, texts)
    words = source_words(inputs, texts)

    def read_target() -> TargetStates:
        bar = comfy.utils.ProgressBar(len(texts) + len(benign))
        wanted = 0 if words is None else len(texts)
        found = target.states((*texts, *benign), lambda done, total: bar.update_absolute(done, total), wanted)
        own = _rows(found.states, slice(len(texts), None)) if benign else None
        return replace(found, states=_rows(found.states, slice(len(texts))), benign=own)

    tick = throw_exception_if_processing_interrupted
    alignment = fit_checked(inputs.vector, source, texts, read_target, settings, words=words, tick=tick)
    try:
        write_first(paths, lambda path: save_alignment(alignment, path))
    except OSError as error:
        warn(f"This alignment cannot be kept, so that it is fitted again next time: {error}.")
    return alignment


def choose_target(choice: Mapping[str, Any], inputs: Inputs, seed: int = 0) -> Target:
    """The target of a choice, as of `align`.

    Raises:
        SafetySteeringError: an input that it needs is not connected, or as the targets' own.
    """
    name, settings = choice["target"], {key: value for key, value in choice.items() if key != "target"}
    if name == "conditioning":
        space = settings.get("space", "auto").strip() or "auto"
        return TextStates(inputs.clip, inputs.model, space, inputs.latent, inputs.template)
    if name == "encoder_layer":
        return EncoderLayer(inputs.clip, settings.get("layer", 0.5))
    if name == "clip_vision":
        return ImageStates(inputs.clip_vision, inputs.images, inputs.model)
    if name == "blocks":
        return BlockStates(inputs.model, inputs.clip, BlockChoice(**settings), inputs.latent, inputs.template, seed)
    raise SafetySteeringError(f"The target '{name}' is not known; choose one of {', '.join(TARGETS)}.")


def benign_texts(inputs: Inputs, target: str) -> tuple[str, ...]:
    """The safe prompts of `benign`; none if it is not connected.

    Raises:
        SafetySteeringError: it has too few, or the target reads images.
    """
    if inputs.benign is None:
        return ()
    texts = tuple(dict.fromkeys(row.safe for row in inputs.benign.rows if row.safe))
    if target == "clip_vision" or len(texts) < MIN_BENIGN:
        raise SafetySteeringError(
            f"benign_prompts has {len(texts)} safe prompts. At least {MIN_BENIGN} are needed, and a target that "
            "reads text. Connect benign prompts such as you use, or nothing."
        )
    return texts


def _rows(states: AnchorStates, rows: slice) -> AnchorStates:
    return AnchorStates(states.pooled[rows], states.token[rows])


def anchor_texts(inputs: Inputs) -> tuple[str, ...]:
    """The benign texts to align by: the connected ones, or the vector's own.

    Raises:
        SafetySteeringError: there are none, or no language model is connected and the vector lacks the states of some.
    """
    own = inputs.vector.anchors
    if inputs.anchors is None:
        if own is None:
            raise SafetySteeringError(
                "This vector contains no anchors. Connect harmless captions to anchors and its language model to "
                "safety_llm, or use a vector made by Extract LLM Direction."
            )
        return own.texts
    texts = tuple(dict.fromkeys(row.safe for row in inputs.anchors.rows if row.safe))
    if inputs.images is not None:
        texts = tuple(row.safe for row in inputs.anchors.rows)  # text i is the caption of image i
    if not texts or not all(texts):
        raise SafetySteeringError(
            f"{inputs.anchors.name or 'The prompt set'} has rows without a safe prompt. Anchors must be benign: load a "
            "file of harmless captions, with 'unpaired' set to safe."
        )
    if inputs.llm is None:
        unknown = set(texts) - set(own.texts if own else ())
        if unknown:
            raise SafetySteeringError(
                f"The vector holds no states for {len(unknown)} of {len(texts)} anchors, such as "
                f"'{min(unknown)[:60]}'. Connect its language model to safety_llm, or leave anchors unconnected."
            )
    return texts


def source_states(inputs: Inputs, texts: Sequence[str]) -> torch.Tensor:
    """The anchors' states (n, D_s) in the language model if it is connected, else those in the vector.

    Raises:
        MismatchError: the language model is not the one that the vector was made from.
    """
    own = inputs.vector.anchors
    if inputs.llm is None:
        assert own is not None  # checked by anchor_texts
        rows = {text: number for number, text in enumerate(own.texts)}
        return own.states[[rows[text] for text in texts]]
    layer = inputs.hook_point.number
    space, wanted = inputs.llm.space(layer), inputs.vector.at(inputs.hook_point).space
    if space != wanted:
        raise MismatchError(
            f"The vector lives in {wanted} and the language model gives {space}. Load the model that the vector was "
            "made from."
        )
    bar = comfy.utils.ProgressBar(len(texts))

    def progress(done: int, total: int) -> None:
        throw_exception_if_processing_interrupted()
        bar.update_absolute(done, total)

    with inputs.llm.open():
        states: torch.Tensor = inputs.llm.states(texts, [layer], inputs.vector.info.pooling or "mean", progress)
    return states[:, 0]


def source_words(inputs: Inputs, texts: Sequence[str]) -> Words | None:
    """The anchors' words in the language model if it is connected, else those in the vector; None if it has none."""
    own = inputs.vector.anchors
    if own is None or own.words is None:
        return None
    if inputs.llm is None:
        rows = {text: number for number, text in enumerate(own.texts)}
        return own.words.among([rows[text] for text in texts])
    with inputs.llm.open():
        found: Words = inputs.llm.words(texts, inputs.hook_point.number)
    return choose_anchor_words(found, texts, ANCHOR_WORDS)


def _content_hash(inputs: Inputs, texts: Sequence[Sequence[str]], target: Target, settings: AlignmentSettings) -> str:
    llm = None if inputs.llm is None else [inputs.llm.name, getattr(inputs.llm, "fingerprint", "")]
    content = [
        CONTENT_VERSION,
        inputs.vector.sha256,
        inputs.vector.at(inputs.hook_point).space,
        [texts_sha256(some) for some in texts],
        llm,
        target.key(),
        asdict(settings),
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]
