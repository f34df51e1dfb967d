"""Videos beside each other in one picture, each under a caption."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from .errors import SafetySteeringError

_PAPER, _INK = (27, 31, 36), (236, 239, 241)
_GAP, _LEADING = 8, 4
_SMALLEST = 12  # pixels: what is smaller is not read


def draw_grid(cells: Sequence[Sequence[NDArray[np.uint8]]], captions: Sequence[Sequence[str]]) -> NDArray[np.uint8]:
    """One video of rows of videos.

    cells: rows of videos uint8 (T, H, W, 3), all of one shape. captions: the words above each of them, broken after
    commas where they are wider than a video; a column is wider than its videos if a part without commas is. Returns
    uint8 (T, height, width, 3) with even sides, as H.264 wants them.

    Raises:
        SafetySteeringError: there is no cell, or the videos are not of one shape.
    """
    from PIL import Image, ImageDraw, ImageFont

    shapes = {video.shape for row in cells for video in row}
    if len(shapes) != 1:
        raise SafetySteeringError(f"Videos of one shape are expected beside each other, not {sorted(shapes)}.")
    frames, height, width, _ = shapes.pop()
    size = max(_SMALLEST, min(28, width // 16))
    font, line = ImageFont.load_default(size=size), size + _LEADING
    parts = [part for row in captions for text in row for part in _parts(text)]
    column = math.ceil(max([width, *map(font.getlength, parts)]))
    wrapped = [[_wrap(text, column, font.getlength) for text in row] for row in captions]
    heads = [max([1, *map(len, row)]) * line + _LEADING for row in wrapped]
    tops = [_GAP + sum(heads[: i + 1]) + i * (height + _GAP) for i in range(len(heads))]
    lefts = [_GAP + j * (column + _GAP) for j in range(max(map(len, cells)))]
    sides = (lefts[-1] + column + _GAP, tops[-1] + height + _GAP)
    sheet = Image.new("RGB", (sides[0] + sides[0] % 2, sides[1] + sides[1] % 2), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for top, texts in zip(tops, wrapped, strict=True):
        for left, lines in zip(lefts, texts, strict=False):
            for above, text in enumerate(reversed(lines), 1):  # the last line stands on its video
                pen.text((left, top - _LEADING - above * line), text, fill=_INK, font=font)
    grid: NDArray[np.uint8] = np.repeat(np.asarray(sheet)[None], frames, axis=0)
    for top, videos in zip(tops, cells, strict=True):
        for left, video in zip(lefts, videos, strict=False):
            grid[:, top : top + height, left : left + width] = video
    return grid


def shrink(video: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """A video uint8 (T, H, W, 3) at most `width` wide, its shape kept."""
    from PIL import Image

    if video.shape[2] <= width:
        return video
    size = (width, max(1, round(video.shape[1] * width / video.shape[2])))
    return np.stack([np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS)) for frame in video])


def _parts(text: str) -> list[str]:
    """The pieces that stay whole: each ends with its comma."""
    return [part.strip() for part in re.findall("[^,]+,?", text)]


def _wrap(text: str, width: int, measure: Callable[[str], float]) -> list[str]:
    """A text's lines, none wider than `width` unless a single part is."""
    lines: list[str] = []
    for part in _parts(text):
        if lines and measure(f"{lines[-1]} {part}") <= width:
            lines[-1] += f" {part}"
        else:
            lines.append(part)
    return lines
