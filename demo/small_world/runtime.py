"""Finding ComfyUI and loading the small world's files through its stock loaders, in a plain process on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .scenes.art import cache_dir

WEIGHTS = Path(__file__).resolve().parents[1] / "weights"
RESULTS = Path(__file__).resolve().parents[1] / "results"
GENERATOR_FILE = WEIGHTS / "small_wan.safetensors"
VAE_FILE = WEIGHTS / "small_wan_vae.safetensors"
JUDGE_FILE = WEIGHTS / "small_judge.safetensors"


def work_dir() -> Path:
    """The folder of intermediates: training states, samples, captured states, verdicts."""
    return cache_dir() / "small_world"


def use_comfyui() -> Path:
    """Put ComfyUI on `sys.path` in CPU mode and return its folder: `$COMFYUI_PATH`, else the installer's tree.

    Raises `ComfyTreeError` if there is none. Call before importing anything of `comfy`.
    """
    from comfy_tree import comfyui_on_path

    return comfyui_on_path()


def load_vae(path: Path = VAE_FILE) -> Any:
    """The small Wan VAE as stock `VAELoader` makes it (`comfy.sd.VAE`)."""
    use_comfyui()
    import comfy.sd
    import comfy.utils

    weights, metadata = comfy.utils.load_torch_file(str(path), return_metadata=True)
    vae = comfy.sd.VAE(sd=weights, metadata=metadata)
    vae.throw_exception_if_invalid()
    return vae


def load_generator(path: Path = GENERATOR_FILE, shift: float = 3.0) -> Any:
    """The small Wan as stock `UNETLoader` and then `ModelSamplingSD3(shift)` make it (a `ModelPatcher`).

    The node itself is not imported: it would pull in all of ComfyUI's nodes.
    """
    use_comfyui()
    import comfy.sd
    from comfy.model_sampling import CONST, ModelSamplingDiscreteFlow

    class ShiftedFlow(ModelSamplingDiscreteFlow, CONST):
        pass

    model = comfy.sd.load_diffusion_model(str(path)).clone()
    sampling = ShiftedFlow(model.model.model_config)
    sampling.set_parameters(shift=shift)
    model.add_object_patch("model_sampling", sampling)
    return model


def decode(vae: Any, latents: Any) -> np.ndarray:
    """Latents -> videos uint8 (n, FRAMES, SIZE, SIZE, 3) by the stock VAE, on a path that skips its zero weights."""
    import torch

    from .models.decoder import fast_path

    with torch.inference_mode(), fast_path(vae.first_stage_model):
        pixels = vae.decode(latents)
    return np.round(pixels.clamp(0, 1).numpy() * 255.0).astype(np.uint8)
