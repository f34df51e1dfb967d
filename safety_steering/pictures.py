"""Pictures and videos: charts as arrays, labelled grids of videos, resizing, and reading frames from files."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import SafetySteeringError

VIDEOS = (".mp4", ".webm", ".mov", ".mkv", ".avi", ".m4v")
IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")
KEPT = 64  # frames of a file that are held in memory at once
INK, QUIET, WARNING = "#22303c", "#8a99a6", "#c0392b"  # of charts
_WIDTH, _DPI = 5.6, 120  # inches and dots an inch: charts are narrow, as nodes are


def axis_label(hook_point: str) -> str:
    """A hook point as an axis label: a block's list and index, and "reads" for what it reads; others unchanged."""
    parts = hook_point.split(".")
    if parts[0] not in ("block", "cross_attention"):
        return hook_point
    return f"{parts[1]} {parts[2]}{' reads' if parts[0] == 'cross_attention' else ''}"


def blank_figure(height: float) -> Any:
    """A matplotlib figure of this height in inches, as wide as a node's preview."""
    from matplotlib.figure import Figure

    return Figure(figsize=(_WIDTH, height), dpi=_DPI, layout="constrained")


def as_picture(figure: Any) -> NDArray[np.uint8]:
    """A matplotlib figure as uint8 (H, W, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba(), dtype=np.uint8)[..., :3]


_PAPER, _INK = (27, 31, 36), (236, 239, 241)
_GAP, _LEADING = 8, 4
_SMALLEST = 12  # pixels: smaller text is not legible


def draw_grid(cells: Sequence[Sequence[NDArray[np.uint8]]], captions: Sequence[Sequence[str]]) -> NDArray[np.uint8]:
    """One video of rows of videos.

    cells: rows of videos uint8 (T, H, W, 3), all of one shape. captions: the text above each of them, wrapped
    after commas; a column is wider than its videos if a part without commas is. Returns
    uint8 (T, height, width, 3) with even sides, as H.264 wants them.

    Raises:
        SafetySteeringError: there is no cell, or the videos are not of one shape.
    """
    from PIL import Image, ImageDraw, ImageFont

    shapes = {video.shape for row in cells for video in row}
    if len(shapes) != 1:
        raise SafetySteeringError(f"Expected videos of one shape, got {sorted(shapes)}.")
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


def resized(frames: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Frames uint8 (n, H, W, 3) at another (height, width), by Pillow's antialiased bilinear filter."""
    from PIL import Image

    if frames.shape[1:3] == tuple(size):
        return np.ascontiguousarray(frames)
    height, width = size
    pictures = (Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR) for frame in frames)
    return np.stack([np.asarray(picture) for picture in pictures])


def squared(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Frames (n, H, W, 3) padded to squares with black on the right or below, so that nothing is distorted."""
    side = max(frames.shape[1:3])
    square = np.zeros((len(frames), side, side, 3), np.uint8)
    square[:, : frames.shape[1], : frames.shape[2]] = frames
    return square


def media_files(folder: Path) -> dict[str, Path]:
    """The videos and images of a folder, by name without ending, in the order of their names.

    Raises:
        SafetySteeringError: it is not a folder, holds none, or two of one name.
    """
    if not folder.is_dir():
        raise SafetySteeringError(f"{folder} is not a folder. Give a folder of videos or images.")
    paths = sorted(path for path in folder.iterdir() if path.suffix.casefold() in VIDEOS + IMAGES)
    if not paths:
        raise SafetySteeringError(f"{folder} has no video and no image ({', '.join(VIDEOS + IMAGES)}).")
    files = {path.stem: path for path in paths}
    if len(files) < len(paths):
        twice = next(path.name for path in paths if path not in files.values())
        raise SafetySteeringError(f"{folder} has two files named like {twice}. Keep one of each name.")
    return files


def read_frames(path: Path, kept: int = KEPT) -> NDArray[np.uint8]:
    """At most `kept` frames uint8 (T, H, W, 3) of a file, evenly spread, its first and last among them.

    Raises:
        SafetySteeringError: the file cannot be read, or has no frame.
    """
    frames = _video_frames if path.suffix.casefold() in VIDEOS else _image_frames
    try:
        count = sum(1 for _ in frames(path, frozenset()))
        wanted = frozenset(np.linspace(0, count - 1, min(count, kept)).round().astype(int).tolist())
        found = [frame for frame in frames(path, wanted) if frame is not None]
    except SafetySteeringError:
        raise
    except (OSError, ValueError, SyntaxError) as error:  # Pillow calls some damage a SyntaxError; PyAV's are OSErrors
        raise SafetySteeringError(f"{path.name} cannot be read: {str(error)[:200]}. Is it a whole file?") from error
    if not found:
        raise SafetySteeringError(f"{path.name} has no frames.")
    return np.stack(found)


def _video_frames(path: Path, wanted: frozenset[int]) -> Iterator[NDArray[np.uint8] | None]:
    """One entry a frame: the frame if its number is wanted, else None."""
    try:
        import av
    except ImportError as error:
        raise SafetySteeringError(f"Reading {path.name} needs PyAV, which is not installed: pip install av") from error
    with av.open(str(path)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            yield frame.to_ndarray(format="rgb24") if number in wanted else None


def _image_frames(path: Path, wanted: frozenset[int]) -> Iterator[NDArray[np.uint8] | None]:
    from PIL import Image, ImageSequence

    with Image.open(path) as image:
        for number, frame in enumerate(ImageSequence.Iterator(image)):
            yield np.asarray(frame.convert("RGB")) if number in wanted else None
