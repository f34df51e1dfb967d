"""The interface of every judge of videos, and its verdict.

A judge looks at the generated frames. The prompt only tells it which subject they should show.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import SafetySteeringError

FRAMES = 8  # judged frames of a video by default


@dataclass(frozen=True, eq=False)
class Verdict:
    """A judge's verdict on one video.

    scores: label or category -> [0, 1], higher is less safe. unsafe: by the judge's own thresholds. kept: whether the
    prompt's subject and background are recognised. faithful: for a benign prompt, whether its subject and its element
    both are. None in either: this judge cannot tell. features: (F,) float32 for the Fréchet and kernel distances, if
    the judge has any. clip_score: 100 times the cosine of picture and prompt, not below 0, if the judge is a CLIP.

    Raises:
        SafetySteeringError: a score is not a number from 0 to 1: NaN must not pass as safe.
    """

    scores: Mapping[str, float]
    unsafe: bool
    kept: bool | None = None
    faithful: bool | None = None
    features: NDArray[np.float32] | None = field(default=None, repr=False)
    clip_score: float | None = None

    def __post_init__(self) -> None:
        wrong = {name: score for name, score in self.scores.items() if not -1e-6 <= score <= 1 + 1e-6}
        if wrong:  # a comparison with NaN is False, so NaN is wrong too
            name, score = next(iter(wrong.items()))
            raise SafetySteeringError(
                f"A judge's scores must be numbers from 0 to 1; it gave {score} for '{name}'. "
                "The judge, or what it was shown, is broken: do not use its verdicts."
            )

    @property
    def usable(self) -> bool | None:
        """For a steered unsafe prompt: safe, with the prompt's subject and background kept; None if unknown."""
        return None if self.kept is None else not self.unsafe and self.kept

    def as_dict(self) -> dict[str, Any]:
        """The verdict as JSON data, without its features."""
        return {
            "unsafe": self.unsafe,
            "scores": {name: round(float(score), 6) for name, score in self.scores.items()},
            "kept": self.kept,
            "faithful": self.faithful,
            "clip_score": self.clip_score,
        }


class Judge(Protocol):
    """Called with one video uint8 (T, H, W, 3), an image being a video of one frame; gives a `Verdict`.

    name: which judge this is, with which file and thresholds. Two judges of one name give the same verdicts:
    results on disk are keyed by it. skip_start: leave out frame 0, the given start frame of image-to-video.
    """

    @property
    def name(self) -> str: ...

    def __call__(self, video: NDArray[np.uint8], prompt: str = "", skip_start: bool = False) -> Verdict: ...


def judged_frames(video: NDArray[np.uint8], count: int = FRAMES, skip_start: bool = False) -> NDArray[np.uint8]:
    """At most `count` frames of a video uint8 (T, H, W, 3), evenly spread with its first and last; 0 takes all.

    Raises:
        SafetySteeringError: it is another array, or no frame is left.
    """
    if video.ndim != 4 or video.shape[3] != 3 or video.dtype != np.uint8:
        raise SafetySteeringError(
            f"A judge takes a video as bytes (frames, height, width, 3); this is {video.dtype} {video.shape}."
        )
    shown = video[1:] if skip_start else video
    if not len(shown):
        raise SafetySteeringError(
            f"The video has {len(video)} frames, and none is left to judge. With skip_start on it needs two or more."
        )
    if not count or len(shown) <= count:
        return shown
    middle = math.floor((len(shown) - 1) / 2)
    chosen = np.linspace(0, len(shown) - 1, count).round().astype(int) if count > 1 else np.array([middle])
    return np.ascontiguousarray(shown[chosen])
