"""Videos and images from files, as a judge takes them. PyAV reads videos, Pillow images (animated ones too)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import SafetySteeringError

VIDEOS = (".mp4", ".webm", ".mov", ".mkv", ".avi", ".m4v")
IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")
KEPT = 64  # frames of a file that are ever held in memory


def media_files(folder: Path) -> dict[str, Path]:
    """The videos and images of a folder, by name without ending, in the order of their names.

    Raises:
        SafetySteeringError: it is no folder, holds none, or two of one name.
    """
    if not folder.is_dir():
        raise SafetySteeringError(f"{folder} is no folder. Give a folder of videos or images.")
    paths = sorted(path for path in folder.iterdir() if path.suffix.casefold() in VIDEOS + IMAGES)
    if not paths:
        raise SafetySteeringError(f"{folder} holds no video and no image ({', '.join(VIDEOS + IMAGES)}).")
    files = {path.stem: path for path in paths}
    if len(files) < len(paths):
        twice = next(path.name for path in paths if path not in files.values())
        raise SafetySteeringError(f"{folder} holds two files of the name of {twice}. Keep one of each name.")
    return files


def read_frames(path: Path, kept: int = KEPT) -> NDArray[np.uint8]:
    """At most `kept` frames uint8 (T, H, W, 3) of a file, evenly spread, its first and last among them.

    Raises:
        SafetySteeringError: the file cannot be read, or has no picture.
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
        raise SafetySteeringError(f"{path.name} has no picture in it.")
    return np.stack(found)


def _video_frames(path: Path, wanted: frozenset[int]) -> Iterator[NDArray[np.uint8] | None]:
    """One entry a frame: the frame if its number is wanted, else None."""
    try:
        import av
    except ImportError as error:
        raise SafetySteeringError(f"{path.name} is read by PyAV, which is not installed: pip install av") from error
    with av.open(str(path)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            yield frame.to_ndarray(format="rgb24") if number in wanted else None


def _image_frames(path: Path, wanted: frozenset[int]) -> Iterator[NDArray[np.uint8] | None]:
    from PIL import Image, ImageSequence

    with Image.open(path) as image:
        for number, frame in enumerate(ImageSequence.Iterator(image)):
            yield np.asarray(frame.convert("RGB")) if number in wanted else None
