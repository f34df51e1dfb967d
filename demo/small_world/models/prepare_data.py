"""Render, encode and caption the generator's training scenes once, into memory-mapped arrays outside the repository.

    python tools/start.py small_world.models.prepare_data          (a few minutes; finished parts are kept)

Three kinds of samples, as stock ComfyUI will condition the model (`comfy.model_base.WAN21.concat_cond`):
t2v: no start frame; the 20 extra channels are exactly zero.
i2v: the start frame shows the subject alone, then the elements enter.
i2v from a full frame: the start frame already shows the elements; half of these have a neutral caption.
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from ..files import write_atomically
from ..scenes.dataset import random_scenes
from ..scenes.render import ENTERING, PRESENT, caption, neutral, render

PART = 500
T2V_SHARE, FULL_FRAME_SHARE = 0.55, 0.09


@dataclass(frozen=True)
class Samples:
    """latents (n, 16, 2, 8, 8), start (n, 16, 2, 8, 8) zero for t2v, text (n, 24, 384), all float16; i2v bool (n,)."""

    latents: np.ndarray
    start: np.ndarray
    text: np.ndarray
    i2v: np.ndarray

    def __len__(self) -> int:
        return len(self.i2v)


def folder() -> Path:
    from ..runtime import work_dir

    return work_dir() / "samples"


def make_part(part: int, seed: int) -> None:
    """Make `PART` samples and write them as one file; a finished file is left alone."""
    path = folder() / f"part_{part:04d}.npz"
    if path.exists():
        return
    import torch

    from .text import encode_text
    from .train_vae import encode, vae_with_encoder

    torch.set_num_threads(1)
    scenes = random_scenes(PART, seed * 100_000 + part)
    rng = np.random.default_rng([seed, part])
    roll = rng.random(PART)
    i2v = roll >= T2V_SHARE
    full = roll >= 1.0 - FULL_FRAME_SHARE
    says_nothing = full & (rng.random(PART) < 0.5)
    videos = np.stack([render(s, ENTERING if i2v[k] and not full[k] else PRESENT) for k, s in enumerate(scenes)])
    shown = np.full_like(videos, 128)
    shown[:, 0] = videos[:, 0]
    vae = vae_with_encoder(0)
    start = torch.zeros(PART, 16, 2, 8, 8)
    latents = torch.cat([encode(vae, videos[k : k + 50]) for k in range(0, PART, 50)])
    where = np.flatnonzero(i2v)
    for k in range(0, len(where), 50):
        start[where[k : k + 50]] = encode(vae, shown[where[k : k + 50]])
    text, _ = encode_text([caption(neutral(s) if says_nothing[k] else s) for k, s in enumerate(scenes)])

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            np.savez(file, latents=latents.half(), start=start.half(), text=text.half(), i2v=i2v)

    write_atomically(path, write)


def load_samples(parts: int) -> Samples:
    """The first `parts` finished parts, in memory (3 MB per 100 samples)."""
    files = [np.load(folder() / f"part_{part:04d}.npz") for part in range(parts)]
    return Samples(**{name: np.concatenate([f[name] for f in files]) for name in ("latents", "start", "text", "i2v")})


def main() -> None:
    from tqdm import tqdm

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=int, default=40)
    parser.add_argument("--seed", type=int, default=23)
    arguments = parser.parse_args()
    from .train_vae import vae_with_encoder

    vae_with_encoder(0)
    folder().mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(make_part, part, arguments.seed) for part in range(arguments.parts)]
        for job in tqdm(jobs, desc=f"parts of {PART} samples"):
            job.result()


if __name__ == "__main__":
    main()
