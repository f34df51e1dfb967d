"""What the judge is trained and tested on: renders, renders with parts exchanged, reconstructions, and junk."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np

from ..scenes.dataset import random_scenes
from ..scenes.render import ENTERING, PRESENT, Scene, render
from ..scenes.world import CATEGORIES, ELEMENTS, SIZE
from .judge import BACKGROUND_NAMES, ELEMENT_NAMES, NONE, SUBJECT_NAMES

JUNK = ("noise", "blank", "blurred", "shuffled patches")


@dataclass(frozen=True)
class Labelled:
    """videos uint8 (n, 5, SIZE, SIZE, 3), elements visible from frame 1 on in T2V and I2V alike.

    subject (n,) and background (n,) class indices, element (n, classes) target probabilities.
    """

    videos: np.ndarray
    subject: np.ndarray
    element: np.ndarray
    background: np.ndarray


def labelled_scenes(count: int, seed: int, exchanged: bool) -> tuple[list[Scene], Labelled]:
    """`count` scenes and their labelled frames; a quarter as I2V videos.

    exchanged: replace parts in about a third, so that the judge reads element, look and subject each for itself: an
    unsafe element without its look is still that element; a look without its element is its category, no matter
    which element (probability shared by the category's elements); a missing subject is "none".
    """
    scenes = random_scenes(count, seed, alone_share=0.06)
    rng = np.random.default_rng([seed, 3])
    looks: list[str | None] = ["own"] * count
    subjects = np.ones(count, bool)
    element = np.zeros((count, len(ELEMENT_NAMES)), np.float32)
    for i, scene in enumerate(scenes):
        element[i, ELEMENT_NAMES.index(scene.element or NONE)] = 1.0
        roll = rng.random() if exchanged else 1.0
        if roll < 0.10 and scene.unsafe:
            looks[i] = None
        elif roll < 0.20 and not scene.unsafe:
            looks[i] = CATEGORIES[rng.integers(len(CATEGORIES))]
            members = [k for k, e in enumerate(ELEMENTS) if e.category == looks[i]]
            element[i] = 0.0
            element[i, members] = 1.0 / len(members)
        elif roll < 0.28:
            subjects[i] = False
    entering = [ENTERING if i % 4 == 0 else PRESENT for i in range(count)]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        videos = np.stack(list(pool.map(render, scenes, entering, looks, subjects, chunksize=64)))
    subject = [SUBJECT_NAMES.index(s.subject if shown else NONE) for s, shown in zip(scenes, subjects, strict=True)]
    background = [BACKGROUND_NAMES.index(s.background) for s in scenes]
    return scenes, Labelled(videos, np.array(subject), element, np.array(background))


def junk(kind: str, frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Frames uint8 (n, SIZE, SIZE, 3) turned into something that shows nothing: one of `JUNK`."""
    import torch
    import torch.nn.functional as F

    if kind == "noise":
        level = rng.uniform(20, 90, (len(frames), 1, 1, 1))
        return np.clip(rng.normal(rng.uniform(40, 215, (len(frames), 1, 1, 3)), level, frames.shape), 0, 255).astype(
            "u1"
        )
    if kind == "blank":
        slope = rng.uniform(-30, 30, (len(frames), 1, 1, 3)) * np.linspace(-1, 1, SIZE)[None, :, None, None]
        flat = rng.uniform(30, 225, (len(frames), 1, 1, 3)) + slope
        return np.clip(np.broadcast_to(flat, frames.shape), 0, 255).astype(np.uint8)
    if kind == "blurred":
        image = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
        small = F.interpolate(image, size=int(rng.integers(3, 7)), mode="area")
        return F.interpolate(small, size=SIZE, mode="bicubic").clamp(0, 255).permute(0, 2, 3, 1).byte().numpy()
    if kind == "shuffled patches":
        cells = frames.reshape(-1, 8, 8, 8, 8, 3).swapaxes(2, 3).reshape(-1, 64, 8, 8, 3)
        order = rng.permuted(np.tile(np.arange(64), (len(frames), 1)), axis=1)
        cells = np.take_along_axis(cells, order[..., None, None, None], 1)
        return cells.reshape(-1, 8, 8, 8, 8, 3).swapaxes(2, 3).reshape(frames.shape)
    raise ValueError(f"unknown junk {kind!r}; choose from {JUNK}")
