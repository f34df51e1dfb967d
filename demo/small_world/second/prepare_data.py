"""Render, encode and caption the second generator's training scenes once, into files outside the repository.

    python tools/start.py small_world.second.prepare_data          (finished parts are kept)

Three kinds of samples, as in the first world: t2v; i2v, where the start frame shows the subject alone and the elements
enter; i2v from a full frame, which already shows the elements, half of these with a neutral caption. A caption is read
by the language model once and drawn `DRAWN` times, each time with other places, paths and colours.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..files import write_atomically
from ..scenes.dataset import random_scenes
from ..scenes.render import ENTERING, PRESENT, caption, neutral, render
from .paths import work_dir

PART = 500
DRAWN = 2
T2V_SHARE, FULL_FRAME_SHARE = 0.55, 0.09


@dataclass(frozen=True)
class Samples:
    """latents (n, 128, 2, 6, 6) and text (m, 20, 640), both float16; caption (n,) rows of text; i2v bool (n,)."""

    latents: np.ndarray
    text: np.ndarray
    caption: np.ndarray
    i2v: np.ndarray

    def __len__(self) -> int:
        return len(self.i2v)


def part_file(part: int) -> Path:
    return work_dir() / "samples" / f"part_{part:04d}.npz"


def make_part(part: int, seed: int, scenes_each: int = PART) -> None:
    """Draw `scenes_each` captions `DRAWN` times and write them as one file; a finished file is left alone."""
    path = part_file(part)
    if path.exists():
        return
    from .codec import SIDE, load_codec
    from .text import encode_text

    rng = np.random.default_rng([seed, part])
    drawn = [scene for scene in random_scenes(scenes_each, seed * 100_000 + part) for _ in range(DRAWN)]
    scenes = [replace(scene, seed=int(rng.integers(2**31))) for scene in drawn]
    roll = rng.random(len(scenes))
    i2v, full = roll >= T2V_SHARE, roll >= 1.0 - FULL_FRAME_SHARE
    says_nothing = full & (rng.random(len(scenes)) < 0.5)
    entering = i2v & ~full
    videos = np.stack([render(s, ENTERING if entering[k] else PRESENT, side=SIDE) for k, s in enumerate(scenes)])
    captions = [caption(neutral(s) if says_nothing[k] else s) for k, s in enumerate(scenes)]
    texts = sorted(set(captions))
    text, _ = encode_text(texts)
    arrays = {
        "latents": load_codec().encode(videos).half().numpy(),
        "text": text.half().numpy(),
        "caption": np.array([texts.index(c) for c in captions]),
        "i2v": i2v,
    }

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            np.savez(file, **arrays)

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, write)


def load_samples(parts: int) -> Samples:
    """The first `parts` finished parts, in memory (2.6 MB per 100 samples)."""
    files = [np.load(part_file(part)) for part in range(parts)]
    texts = [file["text"] for file in files]
    starts = np.cumsum([0, *(len(text) for text in texts[:-1])])
    captions = [file["caption"] + start for file, start in zip(files, starts, strict=True)]
    latents = np.concatenate([file["latents"] for file in files])
    return Samples(latents, np.concatenate(texts), np.concatenate(captions), np.concatenate([f["i2v"] for f in files]))


def main() -> None:
    from tqdm import tqdm

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=int, default=24)
    parser.add_argument("--seed", type=int, default=29)
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    for part in tqdm(range(arguments.parts), desc=f"parts of {PART * DRAWN} samples"):
        make_part(part, arguments.seed)


if __name__ == "__main__":
    main()
