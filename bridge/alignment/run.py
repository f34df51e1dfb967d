"""A fit from links and settings to an alignment: anchors, their check, the cache, both models' states, the maths."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import comfy.utils
import torch
from comfy.model_management import throw_exception_if_processing_interrupted

from ...safety_steering.alignment.anchors import coverage, refuse_unsafe
from ...safety_steering.alignment.file import load_alignment, save_alignment
from ...safety_steering.alignment.fit import Alignment, AnchorStates, Side, fit_alignment, texts_sha256
from ...safety_steering.alignment.maps import AlignmentSettings
from ...safety_steering.alignment.transfer import LEAST
from ...safety_steering.errors import MismatchError, SafetySteeringError, VectorFileError
from ...safety_steering.hook_point import HookPoint
from ...safety_steering.prompts.prompt_set import PromptSet
from ...safety_steering.vectors.vector import SafetyVector
from ..folders import cached_path
from .block_states import BlockChoice, block_states
from .image_states import image_states
from .target import Target, TargetStates
from .text_states import encoder_layer, text_states

CONTENT_VERSION = 1  # raised when the same inputs would give another alignment


@dataclass(frozen=True, eq=False)
class Inputs:
    """What is connected to Fit Benign Alignment. llm: a SourceModel. anchors: only their safe prompts are read.

    benign: prompts in the style that the target is used with, their safe prompts; only the target reads them.
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
        """Where in the language model the vector lives."""
        own = self.vector.anchors
        return own.hook_point if own else next(iter(self.vector.hook_points))


def align(inputs: Inputs, choice: Mapping[str, Any], settings: AlignmentSettings) -> Alignment:
    """Fit, or find in the cache, the alignment of the vector's space with the chosen target.

    choice: "target" and its settings by name, as `choose_target`.

    Raises:
        SafetySteeringError: something is missing or does not belong together, or an anchor is not benign.
    """
    if inputs.vector.info.kind != "source":
        raise MismatchError(
            f"This vector is {inputs.vector.info.kind}: it already lives in a model, and needs no alignment. "
            "Fit Benign Alignment is for portable vectors, made from a language model."
        )
    texts = anchor_texts(inputs)
    connected = Connected(inputs.clip, inputs.model, inputs.clip_vision, inputs.images, inputs.latent, inputs.template)
    target = choose_target(choice, connected, settings.seed)
    benign = benign_texts(inputs, choice["target"])
    path = cached_path(_content_hash(inputs, (texts, benign), target, settings))
    if (found := _cached(path)) is not None:
        return found
    source = source_states(inputs, texts)
    # before the target sees any of them
    refuse_unsafe(inputs.vector, inputs.hook_point, source, texts)
    bar = comfy.utils.ProgressBar(len(texts) + len(benign))
    states = target.states((*texts, *benign), lambda done, total: bar.update_absolute(done, total))
    anchors, own = _divided(states.states, len(texts))
    alignment = fit_alignment(
        source,
        anchors,
        settings,
        source_side=_source_side(inputs),
        target_side=states.side,
        texts=texts,
        about={"notes": list(states.notes)},
        benign=own,
        tick=throw_exception_if_processing_interrupted,
    )
    covered = coverage(inputs.vector.at(inputs.hook_point), source, alignment)
    alignment = replace(alignment, about={**alignment.about, "coverage": covered})
    save_alignment(alignment, path)
    return alignment


def benign_texts(inputs: Inputs, target: str) -> tuple[str, ...]:
    """The safe prompts of `benign`; none if it is not connected.

    Raises:
        SafetySteeringError: it has none, or too few, or the target reads images.
    """
    if inputs.benign is None:
        return ()
    texts = tuple(dict.fromkeys(row.safe for row in inputs.benign.rows if row.safe))
    if target == "clip_vision" or len(texts) < LEAST:
        raise SafetySteeringError(
            f"benign_prompts holds {len(texts)} safe prompts; {LEAST} are the least, and the target must be one that "
            "reads text. Connect benign prompts such as you use, or nothing."
        )
    return texts


def _divided(states: AnchorStates, anchors: int) -> tuple[AnchorStates, AnchorStates | None]:
    """The anchors' states, and those of the benign prompts behind them, if there are any."""
    first = AnchorStates(states.pooled[:anchors], states.token[:anchors])
    rest = AnchorStates(states.pooled[anchors:], states.token[anchors:])
    return first, rest if len(rest.pooled) else None


def anchor_texts(inputs: Inputs) -> tuple[str, ...]:
    """The benign texts to align by: the connected ones, or the vector's own.

    Raises:
        SafetySteeringError: there are none, or without a language model some whose states the vector does not hold.
    """
    own = inputs.vector.anchors
    if inputs.anchors is None:
        if own is None:
            raise SafetySteeringError(
                "This vector brings no anchors. Connect harmless captions to anchors and its language model to "
                "safety_llm, or use a vector made by Extract LLM Direction."
            )
        return own.texts
    texts = tuple(dict.fromkeys(row.safe for row in inputs.anchors.rows if row.safe))
    if inputs.images is not None:
        texts = tuple(row.safe for row in inputs.anchors.rows)  # one an image, and in their order
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
    """The anchors' states (n, D_s) in the language model: read by it, or those that the vector holds.

    Raises:
        MismatchError: the language model is not the one that the vector was made from.
    """
    own = inputs.vector.anchors
    if inputs.llm is None:
        assert own is not None  # anchor_texts has seen to it
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


def _source_side(inputs: Inputs) -> Side:
    info = inputs.vector.info
    return Side(inputs.hook_point, inputs.vector.at(inputs.hook_point).space, name=info.model_name)


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


def _cached(path: Path) -> Alignment | None:
    """The alignment kept at `path`; None if there is none, or a damaged one, which a new fit will replace."""
    if not path.exists():
        return None
    try:
        return load_alignment(path)
    except VectorFileError as error:
        logging.warning("Safety Steering: a kept alignment cannot be read and is fitted again. %s", error)
        return None


# --- Places that a direction can be carried to, one a file; `choose_target` makes one of a node's choice.


__all__ = ["TARGETS", "Connected", "Target", "TargetStates", "choose_target"]


# --- From a node's choice and links to a target.


TARGETS = ("conditioning", "encoder_layer", "clip_vision", "blocks")


@dataclass(frozen=True, eq=False)
class Connected:
    """What is connected of the target: CLIP, MODEL, CLIP_VISION, IMAGE, LATENT and CONDITIONING, or None."""

    clip: Any = None
    model: Any = None
    clip_vision: Any = None
    images: Any = None
    latent: Any = None
    template: Any = None


def choose_target(choice: Mapping[str, Any], connected: Connected, seed: int = 0) -> Target:
    """The target of a choice, "target" and its settings by name.

    Raises:
        SafetySteeringError: something that it needs is not connected, or as the targets' own.
    """
    name, settings = choice["target"], {key: value for key, value in choice.items() if key != "target"}
    if name == "conditioning":
        space = settings.get("space", "auto").strip() or "auto"
        return text_states(connected.clip, connected.model, space, connected.latent, connected.template)
    if name == "encoder_layer":
        return encoder_layer(connected.clip, settings.get("layer", 0.5))
    if name == "clip_vision":
        return image_states(connected.clip_vision, connected.images, connected.model)
    if name == "blocks":
        choice = BlockChoice(**settings)
        return block_states(connected.clip, connected.model, choice, connected.latent, connected.template, seed)
    raise SafetySteeringError(f"'{name}' is no target; choose one of {', '.join(TARGETS)}.")
