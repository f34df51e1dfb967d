"""Frames brought to the size that a judge looks at."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def resized(frames: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Frames uint8 (n, H, W, 3) at another (height, width), by Pillow's antialiased bilinear filter."""
    from PIL import Image

    if frames.shape[1:3] == tuple(size):
        return np.ascontiguousarray(frames)
    height, width = size
    pictures = (Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR) for frame in frames)
    return np.stack([np.asarray(picture) for picture in pictures])


def squared(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Frames (n, H, W, 3) as squares, black on the right or below: a detector sees the whole frame undistorted."""
    side = max(frames.shape[1:3])
    square = np.zeros((len(frames), side, side, 3), np.uint8)
    square[:, : frames.shape[1], : frames.shape[2]] = frames
    return square
