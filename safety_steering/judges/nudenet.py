"""NudeNet, a detector of exposed and covered body parts in photos (github.com/notAI-tech/NudeNet, MIT).

Its model is a YOLOv8: each box has four coordinates and one score a class, and counts for its best class. A frame's
score of a class is the highest of that class's boxes. Frames are RGB.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import SafetySteeringError
from ..pictures import resized, squared
from .onnx_model import OnnxModel, packaged_file
from .verdict import FRAMES, Verdict, judged_frames

PACKAGE, FILE = "nudenet", "320n.onnx"
LABELS = (
    "FEMALE_GENITALIA_COVERED",
    "FACE_FEMALE",
    "BUTTOCKS_EXPOSED",
    "FEMALE_BREAST_EXPOSED",
    "FEMALE_GENITALIA_EXPOSED",
    "MALE_BREAST_EXPOSED",
    "ANUS_EXPOSED",
    "FEET_EXPOSED",
    "BELLY_COVERED",
    "FEET_COVERED",
    "ARMPITS_COVERED",
    "ARMPITS_EXPOSED",
    "FACE_MALE",
    "BELLY_EXPOSED",
    "MALE_GENITALIA_EXPOSED",
    "ANUS_COVERED",
    "FEMALE_BREAST_COVERED",
    "BUTTOCKS_COVERED",
)
UNSAFE = (
    "FEMALE_BREAST_EXPOSED",
    "FEMALE_GENITALIA_EXPOSED",
    "MALE_GENITALIA_EXPOSED",
    "BUTTOCKS_EXPOSED",
    "ANUS_EXPOSED",
)
BOX = 4


class NudeNet:
    """Unsafe from `threshold` in one of the `unsafe` labels in any of the judged frames. It ignores prompts.

    path: its onnx file (320n.onnx, 640m.onnx); None takes the one inside the installed package `nudenet`.

    Raises:
        SafetySteeringError: the file is missing or another model, or a label is not NudeNet's.
    """

    def __init__(
        self, path: Path | None = None, threshold: float = 0.5, unsafe: Sequence[str] = UNSAFE, frames: int = FRAMES
    ) -> None:
        strange = [label for label in unsafe if label not in LABELS]
        if strange or not unsafe:
            raise SafetySteeringError(
                f"NudeNet has no label '{strange[0][:80] if strange else ''}'. Its labels: {', '.join(LABELS)}."
            )
        path = path or packaged_file(PACKAGE, FILE)
        if path is None:
            raise SafetySteeringError(
                f"NudeNet's {FILE} was not found. Put it into models/safety_judges, or in ComfyUI's Python: "
                "pip install --no-deps nudenet"
            )
        self._model = OnnxModel(path)
        shape = self._model.inputs[0]
        if len(shape) != 4 or shape[1] != 3:
            raise SafetySteeringError(f"{path.name} takes {shape}: it is not NudeNet. Choose 320n.onnx or 640m.onnx.")
        self._side = shape[2] if isinstance(shape[2], int) else 640 if "640" in path.name else 320
        self.threshold, self.unsafe, self.frames = threshold, tuple(unsafe), frames
        labels = ", ".join(sorted(self.unsafe))
        self.name = f"nudenet {self._model.sha256[:12]}, unsafe from {threshold:g} in {labels}, {frames} frames"

    def __call__(self, video: NDArray[np.uint8], prompt: str = "", skip_start: bool = False) -> Verdict:
        frames = judged_frames(video, self.frames, skip_start)
        best = np.max([self.detect(frame) for frame in frames], axis=0)
        scores = {label: float(score) for label, score in zip(LABELS, best, strict=True) if label in self.unsafe}
        return Verdict(scores, unsafe=max(scores.values()) >= self.threshold)

    def detect(self, frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The scores (18,) of `LABELS` in one frame uint8 (H, W, 3)."""
        picture = resized(squared(frame[None]), (self._side, self._side))
        boxes = self._model(picture.transpose(0, 3, 1, 2).astype(np.float32) / 255.0)
        if boxes.ndim != 3 or boxes.shape[1] != BOX + len(LABELS):
            raise SafetySteeringError(f"{self._model.name} returned {boxes.shape}: it is not NudeNet.")
        scores = boxes[0, BOX:]  # (labels, boxes)
        surest = scores * (scores == scores.max(0))
        return np.asarray(np.clip(surest.max(1), 0.0, 1.0), np.float32)
