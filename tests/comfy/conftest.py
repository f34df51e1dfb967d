"""ComfyUI in the pytest process, beside the running server that ``tests/conftest.py`` offers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pack
import pytest
import torch
from comfy_tree import comfyui_on_path


@dataclass(frozen=True)
class InProcess:
    """ComfyUI importable in this process (``import comfy.sd``), and this pack loaded as its node loader does."""

    tree: Path
    models: Path
    pack: ModuleType

    def diffusion_model(self, file_name: str, dtype: torch.dtype | None = None) -> Any:
        """What UNETLoader gives for a file under ``models/diffusion_models``: a fresh ModelPatcher.

        ``dtype`` is the weights' (UNETLoader's ``weight_dtype``); without it core takes float32 on a CPU, whatever the
        file has.
        """
        import comfy.sd

        path = str(self.models / "diffusion_models" / file_name)
        return comfy.sd.load_diffusion_model(path, model_options={} if dtype is None else {"dtype": dtype})


@pytest.fixture(scope="session")
def comfy_in_process(base_directory: Path) -> InProcess:
    """ComfyUI in the pytest process, for tests that need the objects themselves."""
    tree = comfyui_on_path("--base-directory", str(base_directory))
    (base_directory / "custom_nodes").mkdir(exist_ok=True)
    return InProcess(tree=tree, models=base_directory / "models", pack=pack.load())
