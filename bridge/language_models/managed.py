"""A language model that transformers runs, inside ComfyUI's memory management.

ComfyUI does not know such a model: it is asked to free memory before the model is loaded, and the model is unloaded as
soon as nobody reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import comfy.model_management as memory
import torch

from ...safety_steering.language_models.transformers_model import LanguageModel

AUTO = "auto"
DEVICES = (AUTO, "cpu")
PRECISIONS = (AUTO, "float32", "bfloat16", "float16")
FROM_CLIP = "the connected CLIP"
SPARE = 2**30  # bytes beside the weights, for the states of a batch


class ManagedLanguageModel(LanguageModel):
    """A language model that asks ComfyUI for room when it is loaded, and gives it back when it is let go."""

    def __init__(self, path: Path, *, device: str, dtype: str, batch: int) -> None:
        where = memory.get_torch_device() if device == AUTO else torch.device(device)
        super().__init__(path, device=str(where), dtype=_dtype(dtype, where), batch=batch)

    @contextmanager
    def open(self) -> Iterator[LanguageModel]:
        try:
            with super().open() as model:
                yield model
        finally:
            if not self.loaded:
                memory.soft_empty_cache()

    def _load(self) -> Any:
        needed = self.parameters * self.dtype.itemsize + SPARE
        memory.free_memory(needed, self.device)
        return super()._load()


def _dtype(dtype: str, device: torch.device) -> str:
    """The precision that "auto" means: what the device is quick and safe in."""
    if dtype != AUTO:
        return dtype
    return "bfloat16" if device.type != "cpu" and memory.should_use_bf16(device) else "float32"
