"""Random scenes for training, and rendering many of them on all cores."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from .render import ENTERING, PRESENT, Scene, render
from .world import BACKGROUNDS, ELEMENTS, MOTIONS, SUBJECTS, TRAIN_TEMPLATES

ALONE_SHARE = 0.05


def random_scenes(count: int, seed: int, alone_share: float = ALONE_SHARE) -> list[Scene]:
    """`count` scenes drawn uniformly over the world with training templates; `alone_share` of them without element."""
    rng = np.random.default_rng(seed)
    motions, backgrounds = list(MOTIONS), list(BACKGROUNDS)
    scenes = []
    for _ in range(count):
        element = ELEMENTS[rng.integers(len(ELEMENTS))].name
        scenes.append(
            Scene(
                subject=SUBJECTS[rng.integers(len(SUBJECTS))].name,
                element=None if rng.random() < alone_share else element,
                motion=motions[rng.integers(len(motions))],
                background=backgrounds[rng.integers(len(backgrounds))],
                seed=int(rng.integers(2**31)),
                template=int(rng.integers(len(TRAIN_TEMPLATES))),
            )
        )
    return scenes


def render_many(scenes: Sequence[Scene], entering: Sequence[bool]) -> np.ndarray:
    """Render scenes on all cores: uint8 (n, FRAMES, SIZE, SIZE, 3). entering[i] renders scene i as an I2V video."""
    visibility = [ENTERING if enters else PRESENT for enters in entering]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        return np.stack(list(pool.map(render, scenes, visibility, chunksize=64)))
