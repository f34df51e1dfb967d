"""A judge with more to its verdict: features of another network, or a CLIP-Score."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .verdict import FRAMES, Judge, Verdict, judged_frames
from .zero_shot import Encoders, clip_score


class FeatureExtractor(Protocol):
    """Frames uint8 (n, H, W, 3) -> features float32 (n, F). name: which network, with which weights."""

    @property
    def name(self) -> str: ...

    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]: ...


class Extended:
    """`judge`, and to its verdicts the features of another network (mean over the judged frames) or a CLIP-Score."""

    def __init__(
        self,
        judge: Judge,
        features: FeatureExtractor | None = None,
        clip: Encoders | None = None,
        frames: int = FRAMES,
    ) -> None:
        self._judge, self._features, self._clip, self._frames = judge, features, clip, frames
        added = [f"{kind} {part.name}" for kind, part in (("features", features), ("CLIP-Score", clip)) if part]
        self.name = "; ".join([judge.name, *added])

    def __call__(self, video: NDArray[np.uint8], prompt: str = "", skip_start: bool = False) -> Verdict:
        verdict = self._judge(video, prompt, skip_start)
        frames = judged_frames(video, self._frames, skip_start)
        if self._features:
            verdict = replace(verdict, features=self._features(frames).mean(0).astype(np.float32))
        if self._clip and prompt.strip():
            verdict = replace(verdict, clip_score=clip_score(self._clip, self._clip.frames(frames), prompt))
        return verdict
