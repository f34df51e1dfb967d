"""Generating many videos at once through ComfyUI's real sampling path: stock patcher, `CFGGuider`, stock VAE.

Any `ModelPatcher` will do, so a steered model is generated from exactly like an unsteered one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..models.text import encode_text
from ..runtime import decode
from ..scenes.world import FRAMES, SIZE

Encode = Callable[[Sequence[str]], tuple[Any, Any]]


@dataclass(frozen=True)
class Sampling:
    """How to sample. The model's shift is set on the model (`runtime.load_generator`), not here."""

    steps: int = 16
    cfg: float = 3.0
    sampler: str = "euler"
    scheduler: str = "simple"
    negative: str = ""
    batch: int = 32


def noise_of(seeds: Sequence[int]) -> Any:
    """Starting noise float32 (n, 16, 2, 8, 8): each video's own, what ComfyUI draws for that seed."""
    import torch

    draw = [torch.randn(16, 2, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(draw)


def start_latents(vae: Any, start_frames: np.ndarray) -> Any:
    """What stock `WanImageToVideo` encodes: each start frame (n, SIZE, SIZE, 3; uint8) followed by grey frames.

    Latents (n, 16, 2, 8, 8), one encoding at a time as stock VAEEncode does.
    """
    import torch

    from ..models.encoder import linear_encoder

    latents = []
    with torch.inference_mode(), linear_encoder(vae.first_stage_model):
        for frame in start_frames:
            video = torch.full((FRAMES, SIZE, SIZE, 3), 0.5)
            video[0] = torch.from_numpy(frame).float() / 255.0
            latents.append(vae.encode(video))
    return torch.cat(latents)


def conditioning(prompts: Sequence[str], start: Any = None, encode: Encode = encode_text) -> list[Any]:
    """One CONDITIONING for a whole batch: text states stacked along the batch axis, padded with exact zeros.

    start: `start_latents` of the batch for I2V, None for T2V. encode: what reads the prompts.
    """
    import torch

    states, _ = encode(prompts)
    extra: dict[str, Any] = {}
    if start is not None:
        mask = torch.ones(1, 1, *start.shape[2:])
        mask[:, :, 0] = 0.0
        extra = {"concat_latent_image": start, "concat_mask": mask}
    return [[states, extra]]


def generate_latents(
    model: Any,
    prompts: Sequence[str],
    seeds: Sequence[int],
    start: Any = None,
    how: Sampling = Sampling(),
    encode: Encode = encode_text,
) -> Any:
    """Sample one batch: latents (n, 16, 2, 8, 8) as stock nodes pass them to `VAEDecode`.

    model: any ModelPatcher of the small Wan, steered or not. start: `start_latents` of the batch for I2V. encode: what
    reads the prompts.
    Raises `ValueError` unless there is one seed a prompt.
    """
    import comfy.sample
    import torch

    if len(prompts) != len(seeds):
        raise ValueError(f"{len(prompts)} prompts but {len(seeds)} seeds; every video needs its own")
    noise = noise_of(seeds)
    with torch.inference_mode():
        return comfy.sample.sample(
            model,
            noise,
            how.steps,
            how.cfg,
            how.sampler,
            how.scheduler,
            conditioning(prompts, start, encode),
            conditioning([how.negative] * len(prompts), start, encode),
            torch.zeros_like(noise),
            disable_pbar=True,
            seed=int(seeds[0]),
        )


def generate(
    model: Any,
    vae: Any,
    prompts: Sequence[str],
    seeds: Sequence[int],
    start_frames: np.ndarray | None = None,
    how: Sampling = Sampling(),
    encode: Encode = encode_text,
) -> np.ndarray:
    """Videos uint8 (n, FRAMES, SIZE, SIZE, 3) of any number of prompts, `how.batch` at a time.

    start_frames: uint8 (n, SIZE, SIZE, 3) for I2V (`scenes.start_frame`), None for T2V. encode: what reads the prompts.
    """
    videos = []
    for first in range(0, len(prompts), how.batch):
        rows = slice(first, first + how.batch)
        start = None if start_frames is None else start_latents(vae, start_frames[rows])
        videos.append(decode(vae, generate_latents(model, prompts[rows], seeds[rows], start, how, encode)))
    return np.concatenate(videos)
