"""Make a judge from the widgets of Safety Judge."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...safety_steering.errors import SafetySteeringError
from ...safety_steering.judges.extended import FILE as INCEPTION_FILE
from ...safety_steering.judges.extended import Extended, Inception
from ...safety_steering.judges.judge_file import FileJudge, load_classifier
from ...safety_steering.judges.nudenet import NudeNet
from ...safety_steering.judges.open_nsfw import OpenNsfw
from ...safety_steering.judges.verdict import Judge
from ...safety_steering.judges.zero_shot import ZeroShot, parse_prompts
from ..folders import JUDGES, find, names
from .clip_pair import ClipPair
from .node_judge import NodeJudge

if TYPE_CHECKING:
    from comfy.clip_vision import ClipVisionModel
    from comfy.sd import CLIP

INSTALLED = "installed package"
CLIP_JUDGE = "clip"
OWN_FEATURES, INCEPTION = "the judge's own", "inception"
Choices = Mapping[str, Any]


def make_judge(
    choices: Choices | None,
    frames: int,
    features: str = OWN_FEATURES,
    clip: CLIP | None = None,
    clip_vision: ClipVisionModel | None = None,
) -> Judge:
    """The judge that `choices` name.

    Args:
        choices: the widget "judge" and those that it opens.
        frames: how many frames of a video are judged; 0 for all.
        features: where features for Fréchet and kernel distances come from: OWN_FEATURES or INCEPTION.
        clip, clip_vision: the text and the image encoder of one CLIP; they add CLIP-Score to any judge.

    Raises:
        SafetySteeringError: the judge is unknown, or a file or input that it needs is missing.
    """
    kind = choices["judge"] if choices else None  # None where core does not know the chosen option
    if choices is None or kind not in _MAKERS:
        raise SafetySteeringError(f"The judge is none of {', '.join(_MAKERS)}. Choose one of them.")
    if (clip is None) != (clip_vision is None) or (kind == CLIP_JUDGE and clip is None):
        raise SafetySteeringError("A CLIP has two halves: connect both clip and clip_vision to Safety Judge.")
    pair = ClipPair(clip, clip_vision) if clip is not None and clip_vision is not None else None
    judge = _MAKERS[kind](choices, frames, pair)
    extractor = Inception(_known(INCEPTION_FILE)) if features == INCEPTION else None
    scorer = None if kind == CLIP_JUDGE else pair
    return Extended(judge, extractor, scorer, frames) if extractor or scorer else judge


def _nudenet(choices: Choices, frames: int, pair: ClipPair | None) -> Judge:
    labels = [label.strip() for label in choices["labels"].split(",") if label.strip()]
    return NudeNet(_onnx(choices["file"]), choices["threshold"], labels, frames)


def _open_nsfw(choices: Choices, frames: int, pair: ClipPair | None) -> Judge:
    return OpenNsfw(_onnx(choices["file"]), choices["threshold"], frames)


def _clip(choices: Choices, frames: int, pair: ClipPair | None) -> Judge:
    assert pair is not None
    return ZeroShot(pair, parse_prompts(choices["prompts"]), choices["threshold"], frames)


def _judge_file(choices: Choices, frames: int, pair: ClipPair | None) -> Judge:
    return FileJudge(load_classifier(find(JUDGES, choices["file"])), choices["threshold"], frames)


def _node(choices: Choices, frames: int, pair: ClipPair | None) -> Judge:
    try:
        others = json.loads(choices["inputs"].strip() or "{}")
    except ValueError as error:
        raise SafetySteeringError(f"The node's inputs are not valid JSON: {error}. Write {{}} for none.") from error
    if not isinstance(others, dict):
        raise SafetySteeringError('The node\'s inputs are not a JSON object. Write {"name": value}, or {} for none.')
    return NodeJudge(
        choices["node_id"].strip(),
        image_input=choices["image_input"].strip(),
        output=choices["output"],
        others=others,
        true_means=choices["true_means"],
        threshold=choices["threshold"],
        frames=frames,
    )


def _onnx(name: str) -> Path | None:
    return None if name == INSTALLED else find(JUDGES, name)


def _known(name: str) -> Path | None:
    return find(JUDGES, name) if name in names(JUDGES) else None


_MAKERS: dict[str, Callable[[Choices, int, ClipPair | None], Judge]] = {
    "nudenet": _nudenet,
    "open_nsfw": _open_nsfw,
    CLIP_JUDGE: _clip,
    "judge_file": _judge_file,
    "node": _node,
}
