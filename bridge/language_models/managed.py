"""Language models under `models/safety_llms`, and one that makes room for itself.

A model that transformers runs is unknown to ComfyUI's memory management: ComfyUI is asked to free memory before such a
model is loaded, and the model is let go as soon as nobody reads it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import comfy.model_management as memory
import folder_paths
import torch

from ...safety_steering.errors import SafetySteeringError
from ...safety_steering.language_models.transformers_model import LanguageModel, check_files
from ..folders import LLMS

AUTO = "auto"
DEVICES = (AUTO, "cpu")
PRECISIONS = (AUTO, "float32", "bfloat16", "float16")
FROM_CLIP = "the connected CLIP"
SPARE = 2**30  # bytes beside the weights, for the states of a batch
DEEPEST = 3  # folders below a search path


def llm_names() -> list[str]:
    """Models in the folders of language models: Hugging Face folders and GGUF files, by their path in there."""
    return sorted({name for root in _roots() for name in _models_in(root)})


def find_llm(name: str) -> Path:
    """The path of a model.

    Raises:
        SafetySteeringError: no such model in the folders (nothing outside of them is read), or files are missing.
    """
    for root in _roots():
        if name in _models_in(root):
            check_files(root / name)
            return root / name
    known = llm_names()
    raise SafetySteeringError(
        f"The language model '{name}' was not found. Put a Hugging Face folder (config.json, tokenizer, safetensors) "
        f"or a .gguf file into models/{LLMS} and press R to refresh. There are: {', '.join(known[:8]) or 'none yet'}."
    )


def _roots() -> list[Path]:
    return [Path(folder) for folder in folder_paths.get_folder_paths(LLMS)]


def _models_in(root: Path) -> Iterator[str]:
    for folder, below, files in os.walk(root, followlinks=True):
        here = Path(folder).relative_to(root)
        if len(here.parts) >= DEEPEST:
            below.clear()
        if "config.json" in files and here.parts:
            yield here.as_posix()
            below.clear()
        yield from ((here / file).as_posix() for file in files if file.lower().endswith(".gguf"))


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
