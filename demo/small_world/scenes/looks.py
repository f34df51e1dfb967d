"""The look each unsafe category shares beside its distinct elements, painted between background and subject.

gore: dark red splatter and drips running down; violence: flames, a flash, flying debris; drugs: smoke, powder, loose
pills. Real unsafe content has such a common appearance; without one there is nothing for a direction to find.
"""

from __future__ import annotations

import numpy as np

from .world import SIZE

_Y, _X = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) + 0.5


def paint_look(category: str, frame: np.ndarray, t: int, seed: int, opacity: float) -> None:
    """Paint the look of `category` at time step `t` into `frame` (SIZE, SIZE, 3) float32, in place.

    `opacity` in [0, 1] fades the whole look. The same seed gives the same shapes in every frame.
    """
    if opacity > 0.0:
        _PAINTERS[category](frame, t, np.random.default_rng([seed, 77]), opacity)


def _blend(frame: np.ndarray, mask: np.ndarray, colour: np.ndarray | tuple[float, float, float]) -> None:
    frame += mask[..., None] * (np.asarray(colour, np.float32) - frame)


def _disc(x: float, y: float, radius: float) -> np.ndarray:
    return np.clip(radius + 0.5 - np.hypot(_X - x, _Y - y), 0.0, 1.0)


def _paint_gore(frame: np.ndarray, t: int, rng: np.random.Generator, opacity: float) -> None:
    mask = np.zeros((SIZE, SIZE), np.float32)
    for _ in range(3):
        x, y = rng.uniform(6, SIZE - 6, 2)
        mask = np.maximum(mask, _disc(x, y, rng.uniform(4, 7)))
        for angle, distance, radius in zip(
            rng.uniform(0, 2 * np.pi, 5), rng.uniform(6, 11, 5), rng.uniform(1, 2.5, 5), strict=True
        ):
            mask = np.maximum(mask, _disc(x + distance * np.cos(angle), y + distance * np.sin(angle), radius))
    for x, length, speed in zip(
        rng.uniform(2, SIZE - 2, 6), rng.uniform(6, 16, 6), rng.uniform(1.0, 2.0, 6), strict=True
    ):
        end = length + speed * t
        drip = np.clip(2.0 - np.abs(_X - x), 0, 1) * (end > _Y)
        mask = np.maximum(mask, np.maximum(drip, _disc(x, end, 2.2)))
    _blend(frame, 0.9 * opacity * mask, (0.52, 0.02, 0.05))


def _paint_violence(frame: np.ndarray, t: int, rng: np.random.Generator, opacity: float) -> None:
    flash_x, flash_y, flash_t = rng.uniform(8, SIZE - 8), rng.uniform(4, 20), rng.integers(1, 4)
    flash = np.exp(-((_X - flash_x) ** 2 + (_Y - flash_y) ** 2) / 160.0) * (0.95 - 0.25 * abs(t - flash_t))
    _blend(frame, opacity * np.clip(flash, 0, 1), (1.0, 0.97, 0.75))
    phase = rng.uniform(0, 2 * np.pi, 3)
    wave = np.sin(_X[0] * 0.45 + phase[0] + 0.7 * t) + 0.7 * np.sin(_X[0] * 0.7 + phase[1] - 0.9 * t)
    height = 15.0 + 4.0 * wave + 2.0 * np.sin(_X[0] * 0.2 + phase[2])
    depth = (_Y - (SIZE - height)[None, :]) / height[None, :]
    mask = np.clip(depth * 8.0, 0, 1)
    warm = np.clip(depth, 0, 1)[..., None]
    fire = (1 - warm) * np.array([0.9, 0.2, 0.05], np.float32) + warm * np.array([1.0, 0.85, 0.2], np.float32)
    _blend(frame, 0.92 * opacity * mask, fire)
    for angle, speed, start in zip(
        rng.uniform(0, 2 * np.pi, 9), rng.uniform(1, 2, 9), rng.uniform(14, 26, 9), strict=True
    ):
        reach = start + speed * t
        x, y = SIZE / 2 + reach * np.cos(angle), SIZE / 2 + reach * np.sin(angle)
        _blend(frame, opacity * _disc(x, y, 1.3), (0.15, 0.12, 0.12))


def _paint_drugs(frame: np.ndarray, t: int, rng: np.random.Generator, opacity: float) -> None:
    for x, y, radius in zip(
        rng.uniform(4, SIZE - 4, 5), rng.uniform(10, SIZE - 8, 5), rng.uniform(6, 10, 5), strict=True
    ):
        puff = np.exp(
            -((_X - x - 1.5 * np.sin(0.5 * t + x)) ** 2 + (_Y - y + 1.5 * t) ** 2) / (2 * (radius + 0.5 * t) ** 2)
        )
        _blend(frame, 0.7 * opacity * puff, (0.80, 0.84, 0.72))
    heap = rng.uniform(14, SIZE - 14)
    outline = SIZE - 9.0 * np.exp(-((_X[0] - heap) ** 2) / 200.0)
    _blend(frame, opacity * np.clip(_Y - outline[None, :], 0, 1), (0.93, 0.93, 0.93))
    for x, y, angle in zip(
        rng.uniform(4, SIZE - 4, 6), rng.uniform(SIZE - 9, SIZE - 3, 6), rng.uniform(0, np.pi, 6), strict=True
    ):
        along = (_X - x) * np.cos(angle) + (_Y - y) * np.sin(angle)
        across = -(_X - x) * np.sin(angle) + (_Y - y) * np.cos(angle)
        capsule = np.clip(2.2 - np.hypot(np.maximum(np.abs(along) - 1.8, 0), across), 0, 1)
        _blend(frame, opacity * capsule * (along > 0), (0.85, 0.15, 0.25))
        _blend(frame, opacity * capsule * (along <= 0), (0.98, 0.95, 0.6))


_PAINTERS = {"gore": _paint_gore, "violence": _paint_violence, "drugs": _paint_drugs}
