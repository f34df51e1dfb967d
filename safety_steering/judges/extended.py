"""A judge whose verdicts also hold features of another network, such as Inception's, or a CLIP-Score.

Inception is the network of published FID and KID values (2048 features a frame): torch-fidelity's port of the
TensorFlow graph, with a weight file that the user brings. Nothing is downloaded.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import SafetySteeringError
from ..files import file_sha256
from .verdict import FRAMES, Judge, Verdict, judged_frames
from .zero_shot import Encoders, clip_score

FILE = "weights-inception-2015-12-05-6726825d.pth"
LAYER = "2048"
BATCH = 8


class FeatureExtractor(Protocol):
    """Frames uint8 (n, H, W, 3) -> features float32 (n, F). name: which network, with which weights."""

    @property
    def name(self) -> str: ...

    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]: ...


class Extended:
    """`judge`, its verdicts with another network's features (mean over the judged frames) or with a CLIP-Score."""

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


class Inception:
    """Frames uint8 (n, H, W, 3) -> features float32 (n, 2048).

    Raises:
        SafetySteeringError: the weight file or torch-fidelity is missing, or the file holds something else.
    """

    def __init__(self, path: Path | None) -> None:
        if path is None or not path.is_file():
            raise SafetySteeringError(
                f"Inception's weights, {FILE} (91 MB), were not found. Put the file into models/safety_judges (it is "
                "in torch-fidelity's releases on GitHub), or use the judge's own features."
            )
        try:
            network_class = import_module("torch_fidelity.feature_extractor_inceptionv3").FeatureExtractorInceptionV3
        except ImportError as error:
            raise SafetySteeringError(
                "Inception needs torch-fidelity, which is missing. In ComfyUI's Python: pip install torch-fidelity"
            ) from error
        import torch

        try:
            # torch-fidelity unpickles any object; a file with more than tensors fails here first
            torch.load(path, map_location="cpu", weights_only=True)
            network = network_class("inception-v3-compat", [LAYER], feature_extractor_weights_path=str(path))
        except Exception as error:  # torch and pickle have many
            raise SafetySteeringError(f"{path.name} is not Inception's weight file: {str(error)[:200]}") from error
        self._network: Any = network.eval()
        self.name = f"inception {file_sha256(path)[:12]}"

    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        import torch

        batch = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
        with torch.inference_mode():
            parts = [self._network(part)[0] for part in torch.split(batch, BATCH)]
        return torch.cat(parts).float().numpy()
