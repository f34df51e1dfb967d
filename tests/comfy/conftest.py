"""ComfyUI in the pytest process, beside the running server that ``tests/conftest.py`` offers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pack
import pytest
import torch
from comfy_tree import comfyui_on_path
from guarded import GuardedServer, guarded_copy


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


@pytest.fixture(scope="session")
def guarded_server(base_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedServer]:
    """A running ComfyUI under a policy; tests take it as ``guarded``."""
    with GuardedServer(guarded_copy(base_directory, tmp_path_factory.mktemp("guarded") / "comfyui")) as running:
        yield running


@pytest.fixture
def guarded(guarded_server: GuardedServer) -> GuardedServer:
    """The guarded server under its first policy, whatever the last test made of it."""
    guarded_server.set_policy()
    return guarded_server
