"""A scene: one subject in the middle, a few moving elements around it, a coloured background, one caption.

A scene is a value: the same scene always gives the same caption and, bit for bit, the same frames of a given side.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .art import sprite
from .looks import paint_look
from .world import BACKGROUNDS, BENIGN_ELEMENTS, FRAMES, MOTIONS, NEUTRAL_TEMPLATES, SIZE, TEMPLATES, Thing, thing

# How visible elements and look are in each frame of an I2V scene: frame 0 is the start frame, the subject alone.
ENTERING = (0.0, 0.6, 1.0, 1.0, 1.0)
PRESENT = (1.0,) * FRAMES
ELEMENT_COUNT = 5


@dataclass(frozen=True)
class Scene:
    """`element` is a name of `world.ELEMENTS`, or None for the subject alone; `template` indexes `world.TEMPLATES`."""

    subject: str
    element: str | None
    motion: str
    background: str
    seed: int
    template: int = 0

    @property
    def thing(self) -> Thing | None:
        """The element itself, None for a scene without one."""
        return None if self.element is None else thing(self.element)

    @property
    def category(self) -> str | None:
        """The unsafe category, None for a benign scene."""
        return None if self.element is None else thing(self.element).category

    @property
    def unsafe(self) -> bool:
        return self.category is not None


def caption(scene: Scene) -> str:
    """The scene in words. A scene without element is described by a neutral sentence."""
    article = "an" if scene.subject[0] in "aeio" else "a"
    words = {"subject": f"{article} {scene.subject}", "background": scene.background}
    if scene.element is None:
        return NEUTRAL_TEMPLATES[scene.template % len(NEUTRAL_TEMPLATES)].format(**words)
    return TEMPLATES[scene.template].format(element=scene.element, motion=scene.motion, **words)


def neutral(scene: Scene) -> Scene:
    """The same subject, background and seed without any element."""
    return replace(scene, element=None)


def safe_twin(scene: Scene, benign: tuple[str, ...] = tuple(e.name for e in BENIGN_ELEMENTS)) -> Scene:
    """The scene with its element replaced by a benign one, drawn by the scene's seed; all else is kept."""
    return replace(scene, element=benign[np.random.default_rng([scene.seed, 5]).integers(len(benign))])


def render(
    scene: Scene,
    visibility: tuple[float, ...] = PRESENT,
    look: str | None = "own",
    show_subject: bool = True,
    side: int = SIZE,
) -> np.ndarray:
    """The scene's frames: uint8 (FRAMES, side, side, 3).

    visibility: opacity of elements and look in each frame (`PRESENT`, or `ENTERING` for I2V).
    look: "own" paints the look of the element's category; a category's name or None overrides it (the judge's
    augmentation needs elements without their look, and looks without their elements). show_subject=False leaves the
    middle empty, for the same purpose. side: pixels; another side shows the same scene, drawn finer or coarser.
    """
    scale = side / SIZE
    rng = np.random.default_rng([scene.seed, 1])
    colour = np.asarray(BACKGROUNDS[scene.background], np.float32) / 255.0 + rng.uniform(-0.03, 0.03, 3)
    slope = rng.uniform(-0.12, 0.12)
    backdrop = colour + slope * np.linspace(-1, 1, side, dtype=np.float32)[:, None, None] * np.ones((1, side, 1))
    subject = sprite(thing(scene.subject).code, round(scale * int(rng.integers(28, 31))))
    subject_at = scale * (SIZE / 2 + rng.uniform(-2.5, 2.5, 2))
    paths = scale * element_paths(scene.motion, rng)
    size = round(scale * int(rng.integers(17, 19)))
    category = scene.category if look == "own" else look
    element = None if scene.element is None else sprite(thing(scene.element).code, size)

    frames = np.empty((FRAMES, side, side, 3), np.float32)
    for t in range(FRAMES):
        frame = np.clip(backdrop, 0, 1).astype(np.float32)
        if category is not None:
            paint_look(category, frame, t, scene.seed, visibility[t])
        if show_subject:
            _paste(frame, subject, subject_at, 1.0)
        if element is not None:
            for position in paths[:, t]:
                _paste(frame, element, position, visibility[t])
        frames[t] = frame
    return np.round(np.clip(frames, 0, 1) * 255.0).astype(np.uint8)


def start_frame(scene: Scene, side: int = SIZE) -> np.ndarray:
    """What an I2V run is shown: the subject alone on its background, uint8 (side, side, 3)."""
    return render(neutral(scene), side=side)[0]


def element_paths(motion: str, rng: np.random.Generator) -> np.ndarray:
    """Element centres (count, FRAMES, 2) as (x, y): spread on a ring around the subject, moving through their place."""
    count = ELEMENT_COUNT
    angle = rng.uniform(0, 2 * np.pi) + np.arange(count) * 2 * np.pi / count + rng.uniform(-0.25, 0.25, count)
    radius = rng.uniform(22, 25, count)
    home = SIZE / 2 + np.stack([1.05 * radius * np.cos(angle), radius * np.sin(angle)], -1)
    time = np.arange(FRAMES) - (FRAMES - 1) / 2
    path = home[:, None] + time[:, None] * np.asarray(MOTIONS[motion])
    if motion == "floating":
        turn = rng.uniform(0, 2 * np.pi, (count, 1)) + 1.2 * time
        path = path + 1.5 * np.stack([np.cos(turn), np.sin(turn)], -1)
    return path


def _paste(frame: np.ndarray, picture: np.ndarray, centre: np.ndarray, opacity: float) -> None:
    """Draw a premultiplied RGBA picture around `centre`, whole pixels, clipped to the frame, in place."""
    if opacity <= 0.0:
        return
    size, side = picture.shape[0], frame.shape[0]
    x, y = (round(float(c) - size / 2) for c in centre)
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + size, side), min(y + size, side)
    if left >= right or top >= bottom:
        return
    part = opacity * picture[top - y : bottom - y, left - x : right - x]
    region = frame[top:bottom, left:right]
    region *= 1.0 - part[..., 3:]
    region += part[..., :3]
