"""Generating many of the second world's videos through ComfyUI's real sampling path: stock patcher, stock VAE.

Any `ModelPatcher` of the small HunyuanVideo will do, steered or not: both are generated from in exactly the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..measuring.sampling import Encode, Sampling
from ..runtime import load_generator as load_flow_model
from ..runtime import load_vae as load_any_vae
from .codec import CHANNELS, GRID
from .model import POOLED
from .paths import generator_file, vae_file
from .text import encode_text
from .train_generator import SHIFT

HOW = Sampling()
LATENT = (CHANNELS, 2, GRID, GRID)


def load_generator() -> Any:
    """The small HunyuanVideo as stock `UNETLoader` and then `ModelSamplingSD3` make it."""
    return load_flow_model(generator_file(), SHIFT)


def load_vae() -> Any:
    """Its VAE as stock `VAELoader` makes it."""
    return load_any_vae(vae_file())


def noise_of(seeds: Sequence[int]) -> Any:
    """Starting noise float32 (n, 128, 2, 6, 6): each video's own, what ComfyUI draws for that seed."""
    import torch

    return torch.stack([torch.randn(*LATENT, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def start_latents(vae: Any, start_frames: np.ndarray) -> Any:
    """Start frames uint8 (n, 96, 96, 3) as stock VAEEncode gives them: latents (n, 128, 1, 6, 6)."""
    import torch

    with torch.inference_mode():
        return torch.cat([vae.encode(torch.from_numpy(frame[None]).float() / 255.0) for frame in start_frames])


def conditioning(prompts: Sequence[str], i2v: bool, encode: Encode = encode_text) -> list[Any]:
    """One CONDITIONING for a whole batch; for I2V it says that the first frame is given, as HunyuanImageToVideo's
    "v2 (replace)" does."""
    import torch

    extra: dict[str, Any] = {"pooled_output": torch.zeros(1, POOLED)} | ({"guiding_frame_index": 0} if i2v else {})
    return [[encode(prompts)[0], extra]]


def generate_latents(
    model: Any,
    prompts: Sequence[str],
    seeds: Sequence[int],
    start: Any = None,
    how: Sampling = HOW,
    encode: Encode = encode_text,
) -> Any:
    """Sample one batch: latents (n, 128, 2, 6, 6) as stock nodes pass them to `VAEDecode`.

    model: any ModelPatcher of the small HunyuanVideo, steered or not. start: `start_latents` of the batch for I2V.
    Raises `ValueError` unless there is one seed a prompt.
    """
    import comfy.sample
    import torch

    if len(prompts) != len(seeds):
        raise ValueError(f"{len(prompts)} prompts but {len(seeds)} seeds; every video needs its own")
    noise = noise_of(seeds)
    latents, made = torch.zeros_like(noise), None
    if start is not None:
        latents[:, :, :1], made = start, torch.ones_like(noise[:, :1])
        made[:, :, 0] = 0.0
    i2v = start is not None
    with torch.inference_mode():
        return comfy.sample.sample(
            model,
            noise,
            how.steps,
            how.cfg,
            how.sampler,
            how.scheduler,
            conditioning(prompts, i2v, encode),
            conditioning([how.negative] * len(prompts), i2v, encode),
            latents,
            noise_mask=made,
            disable_pbar=True,
            seed=int(seeds[0]),
        )


def decode(vae: Any, latents: Any) -> np.ndarray:
    """Latents -> videos uint8 (n, 5, 96, 96, 3) by the stock VAE."""
    import torch

    with torch.inference_mode():
        return np.round(vae.decode(latents).clamp(0, 1).numpy() * 255.0).astype(np.uint8)


def generate(
    model: Any,
    vae: Any,
    prompts: Sequence[str],
    seeds: Sequence[int],
    start_frames: np.ndarray | None = None,
    how: Sampling = HOW,
    encode: Encode = encode_text,
) -> np.ndarray:
    """Videos uint8 (n, 5, 96, 96, 3) of any number of prompts, `how.batch` at a time.

    start_frames: uint8 (n, 96, 96, 3) for I2V, None for T2V. encode: what reads the prompts.
    """
    videos = []
    for first in range(0, len(prompts), how.batch):
        rows = slice(first, first + how.batch)
        start = None if start_frames is None else start_latents(vae, start_frames[rows])
        videos.append(decode(vae, generate_latents(model, prompts[rows], seeds[rows], start, how, encode)))
    return np.concatenate(videos)


def judge_view(videos: np.ndarray) -> np.ndarray:
    """Videos uint8 (n, frames, 96, 96, 3) at the judge's size: (n, frames, 64, 64, 3), antialiased."""
    import torch

    from ..scenes.world import SIZE

    frames = torch.from_numpy(np.ascontiguousarray(videos)).flatten(0, 1).permute(0, 3, 1, 2).float()
    small = torch.nn.functional.interpolate(frames, size=(SIZE, SIZE), mode="bilinear", antialias=True)
    seen = small.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    return np.ascontiguousarray(seen.reshape(*videos.shape[:2], SIZE, SIZE, 3))
