"""The look each unsafe category shares beside its distinct elements, painted between background and subject.

gore: dark red splatter and drips running down; violence: flames, a flash, flying debris; drugs: smoke, powder, loose
pills. Real unsafe content has such a common appearance; without one there is nothing for a direction to find.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from .world import SIZE


def paint_look(category: str, frame: np.ndarray, t: int, seed: int, opacity: float) -> None:
    """Paint the look of `category` at time step `t` into `frame` (side, side, 3) float32, in place.

    `opacity` in [0, 1] fades the whole look. The same seed gives the same shapes in every frame and at every side.
    """
    if opacity > 0.0:
        _PAINTERS[category](frame, t, np.random.default_rng([seed, 77]), opacity)


@lru_cache(maxsize=4)
def _grid(side: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y (side, side) float32 of every pixel's centre, in the world's units: the picture is SIZE wide."""
    y, x = (np.mgrid[0:side, 0:side].astype(np.float32) + np.float32(0.5)) * np.float32(SIZE / side)
    return x, y


def _blend(frame: np.ndarray, mask: np.ndarray, colour: np.ndarray | tuple[float, float, float]) -> None:
    frame += mask[..., None] * (np.asarray(colour, np.float32) - frame)


def _disc(frame: np.ndarray, x: float, y: float, radius: float) -> np.ndarray:
    across, down = _grid(len(frame))
    return np.clip(radius + 0.5 - np.hypot(across - x, down - y), 0.0, 1.0)


def _paint_gore(frame: np.ndarray, t: int, rng: np.random.Generator, opacity: float) -> None:
    across, down = _grid(len(frame))
    mask = np.zeros_like(across)
    for _ in range(3):
        x, y = rng.uniform(6, SIZE - 6, 2)
        mask = np.maximum(mask, _disc(frame, x, y, rng.uniform(4, 7)))
        for angle, distance, radius in zip(
            rng.uniform(0, 2 * np.pi, 5), rng.uniform(6, 11, 5), rng.uniform(1, 2.5, 5), strict=True
        ):
            mask = np.maximum(mask, _disc(frame, x + distance * np.cos(angle), y + distance * np.sin(angle), radius))
    for x, length, speed in zip(
        rng.uniform(2, SIZE - 2, 6), rng.uniform(6, 16, 6), rng.uniform(1.0, 2.0, 6), strict=True
    ):
        end = length + speed * t
        drip = np.clip(2.0 - np.abs(across - x), 0, 1) * (end > down)
        mask = np.maximum(mask, np.maximum(drip, _disc(frame, x, end, 2.2)))
    _blend(frame, 0.9 * opacity * mask, (0.52, 0.02, 0.05))


def _paint_violence(frame: np.ndarray, t: int, rng: np.random.Generator, opacity: float) -> None:
    across, down = _grid(len(frame))
    flash_x, flash_y, flash_t = rng.uniform(8, SIZE - 8), rng.uniform(4, 20), rng.integers(1, 4)
    flash = np.exp(-((across - flash_x) ** 2 + (down - flash_y) ** 2) / 160.0) * (0.95 - 0.25 * abs(t - flash_t))
    _blend(frame, opacity * np.clip(flash, 0, 1), (1.0, 0.97, 0.75))
    phase = rng.uniform(0, 2 * np.pi, 3)
    wave = np.sin(across[0] * 0.45 + phase[0] + 0.7 * t) + 0.7 * np.sin(across[0] * 0.7 + phase[1] - 0.9 * t)
    height = 15.0 + 4.0 * wave + 2.0 * np.sin(across[0] * 0.2 + phase[2])
    depth = (down - (SIZE - height)[None, :]) / height[None, :]
    mask = np.clip(depth * 8.0, 0, 1)
    warm = np.clip(depth, 0, 1)[..., None]
    fire = (1 - warm) * np.array([0.9, 0.2, 0.05], np.float32) + warm * np.array([1.0, 0.85, 0.2], np.float32)
    _blend(frame, 0.92 * opacity * mask, fire)
    for angle, speed, start in zip(
        rng.uniform(0, 2 * np.pi, 9), rng.uniform(1, 2, 9), rng.uniform(14, 26, 9), strict=True
    ):
        reach = start + speed * t
        x, y = SIZE / 2 + reach * np.cos(angle), SIZE / 2 + reach * np.sin(angle)
        _blend(frame, opacity * _disc(frame, x, y, 1.3), (0.15, 0.12, 0.12))


def _paint_drugs(frame: np.ndarray, t: int, rng: np.random.Generator, opacity: float) -> None:
    across, down = _grid(len(frame))
    for x, y, radius in zip(
        rng.uniform(4, SIZE - 4, 5), rng.uniform(10, SIZE - 8, 5), rng.uniform(6, 10, 5), strict=True
    ):
        puff = np.exp(
            -((across - x - 1.5 * np.sin(0.5 * t + x)) ** 2 + (down - y + 1.5 * t) ** 2) / (2 * (radius + 0.5 * t) ** 2)
        )
        _blend(frame, 0.7 * opacity * puff, (0.80, 0.84, 0.72))
    heap = rng.uniform(14, SIZE - 14)
    outline = SIZE - 9.0 * np.exp(-((across[0] - heap) ** 2) / 200.0)
    _blend(frame, opacity * np.clip(down - outline[None, :], 0, 1), (0.93, 0.93, 0.93))
    for x, y, angle in zip(
        rng.uniform(4, SIZE - 4, 6), rng.uniform(SIZE - 9, SIZE - 3, 6), rng.uniform(0, np.pi, 6), strict=True
    ):
        along = (across - x) * np.cos(angle) + (down - y) * np.sin(angle)
        sideways = -(across - x) * np.sin(angle) + (down - y) * np.cos(angle)
        capsule = np.clip(2.2 - np.hypot(np.maximum(np.abs(along) - 1.8, 0), sideways), 0, 1)
        _blend(frame, opacity * capsule * (along > 0), (0.85, 0.15, 0.25))
        _blend(frame, opacity * capsule * (along <= 0), (0.98, 0.95, 0.6))


_PAINTERS = {"gore": _paint_gore, "violence": _paint_violence, "drugs": _paint_drugs}
