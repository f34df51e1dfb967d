"""Features of the Inception network of the FID papers (2048 a frame), from a weight file that the user brings.

The network is torch-fidelity's port of the TensorFlow graph that published FID and KID values are measured with.
Nothing is ever downloaded.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import SafetySteeringError

FILE = "weights-inception-2015-12-05-6726825d.pth"
LAYER = "2048"
BATCH = 8


class Inception:
    """Frames uint8 (n, H, W, 3) -> features float32 (n, 2048).

    Raises:
        SafetySteeringError: the weight file or torch-fidelity is missing, or the file holds something else.
    """

    def __init__(self, path: Path | None) -> None:
        if path is None or not path.is_file():
            raise SafetySteeringError(
                f"FID and KID of Inception need its weights, {FILE} (91 MB), and they were not found. Put the file "
                "into models/safety_judges; torch-fidelity's releases on GitHub have it. Or use the judge's own."
            )
        try:
            network_class = import_module("torch_fidelity.feature_extractor_inceptionv3").FeatureExtractorInceptionV3
        except ImportError as error:
            raise SafetySteeringError(
                "FID and KID of Inception are computed by torch-fidelity, which is not installed. In ComfyUI's Python: "
                "pip install torch-fidelity"
            ) from error
        import torch

        from ..vectors.file import file_sha256

        try:
            # torch-fidelity would unpickle anything: what holds more than tensors fails here first
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
