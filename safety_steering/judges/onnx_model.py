"""Onnx files of photo detectors, run by onnxruntime, which is imported when needed."""

from __future__ import annotations

import hashlib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import SafetySteeringError


def packaged_file(package: str, file_name: str) -> Path | None:
    """A file of an installed Python package, which is not imported; None if it is missing."""
    spec = find_spec(package)
    path = Path(spec.origin).parent / file_name if spec is not None and spec.origin else None
    return path if path is not None and path.is_file() else None


class OnnxModel:
    """An onnx model on the CPU: detectors are small, and the GPU is busy with the generator.

    Raises:
        SafetySteeringError: onnxruntime is not installed, or the file is not an onnx model.
    """

    def __init__(self, path: Path) -> None:
        try:
            onnxruntime = import_module("onnxruntime")
        except ImportError as error:
            raise SafetySteeringError(
                f"{path.name} needs onnxruntime, which is not installed. In ComfyUI's Python: pip install onnxruntime"
            ) from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            data = path.read_bytes()
            self._session: Any = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has an error class for each code, without a common base
            raise SafetySteeringError(f"{path.name} cannot be run: {str(error)[:200]}. Download it again.") from error
        self.name = path.name
        self.sha256 = hashlib.sha256(data).hexdigest()
        self.inputs: list[list[Any]] = [list(given.shape) for given in self._session.get_inputs()]

    def __call__(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """The first output for one input."""
        outputs = self._session.run(None, {self._session.get_inputs()[0].name: batch})
        return np.asarray(outputs[0], np.float32)
