"""Videos beside each other in one picture, each under a caption."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import SafetySteeringError

_PAPER, _INK = (27, 31, 36), (236, 239, 241)
_GAP = 8


def draw_grid(cells: Sequence[Sequence[NDArray[np.uint8]]], captions: Sequence[Sequence[str]]) -> NDArray[np.uint8]:
    """One video of rows of videos.

    cells: rows of videos uint8 (T, H, W, 3), all of one shape. captions: the words above each of them. Returns uint8
    (T, height, width, 3) with even sides, as H.264 wants them.

    Raises:
        SafetySteeringError: there is no cell, or the videos are not of one shape.
    """
    shapes = {video.shape for row in cells for video in row}
    if len(shapes) != 1:
        raise SafetySteeringError(f"Videos of one shape are expected beside each other, not {sorted(shapes)}.")
    frames, height, width, _ = shapes.pop()
    size = max(12, min(28, width // 16))
    line = size + _GAP
    columns = max(map(len, cells))
    sides = (len(cells) * (line + height + _GAP) + _GAP, columns * (width + _GAP) + _GAP)
    sheet = _sheet(sides[0] + sides[0] % 2, sides[1] + sides[1] % 2)
    corners = [
        [(_GAP + i * (line + height + _GAP) + line, _GAP + j * (width + _GAP)) for j in range(len(row))]
        for i, row in enumerate(cells)
    ]
    for row, words in zip(corners, captions, strict=True):
        for (top, left), text in zip(row, words, strict=True):
            _write(sheet, text, (left, top - line), width, size)
    grid: NDArray[np.uint8] = np.repeat(np.asarray(sheet)[None], frames, axis=0)
    for row, videos in zip(corners, cells, strict=True):
        for (top, left), video in zip(row, videos, strict=True):
            grid[:, top : top + height, left : left + width] = video
    return grid


def shrink(video: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """A video uint8 (T, H, W, 3) at most `width` wide, its shape kept."""
    from PIL import Image

    if video.shape[2] <= width:
        return video
    size = (width, max(1, round(video.shape[1] * width / video.shape[2])))
    return np.stack([np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS)) for frame in video])


def _sheet(height: int, width: int) -> Any:
    from PIL import Image

    return Image.new("RGB", (width, height), _PAPER)


def _write(sheet: Any, text: str, corner: tuple[int, int], width: int, size: int) -> None:
    """One line of text, cut to `width` pixels."""
    from PIL import ImageDraw, ImageFont

    font = ImageFont.load_default(size=size)
    shown = text
    while font.getlength(shown) > width and len(shown) > 1:
        shown = shown[:-2] + "\u2026"
    ImageDraw.Draw(sheet).text(corner, shown, fill=_INK, font=font)
