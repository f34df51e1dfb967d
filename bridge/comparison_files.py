"""What the browser is shown of a comparison: two pictures that core itself can show, and a film for our slider."""

from __future__ import annotations

import uuid
from fractions import Fraction
from pathlib import Path
from typing import Any

import folder_paths
import numpy as np
import torch
from comfy_api.latest import InputImpl, Types, io, ui

from ..safety_steering.pictures import shrink
from .guarded_mode import is_guarded

PREVIEW_WIDTH = 768
WEBP = {"lossless": False, "quality": 80, "method": 0}  # method 0: a fifth of the time for a little more size


def to_image(frames: np.ndarray) -> torch.Tensor:
    """Frames uint8 (T, H, W, 3) as IMAGE."""
    return torch.from_numpy(frames).float().div(255)


def to_video(frames: np.ndarray, fps: float) -> Any:
    """Frames uint8 (T, H, W, 3) with even sides as VIDEO."""
    components = Types.VideoComponents(images=to_image(frames), frame_rate=Fraction(fps).limit_denominator(1000))
    return InputImpl.VideoFromComponents(components)


def preview_pair(unsteered: np.ndarray, steered: np.ndarray, fps: float) -> dict[str, Any]:
    """The ui of a comparison: `images`, one for each side, and `safety_ab`, where our slider finds its film.

    The film has the unsteered side on the left half and the steered one on the right: one clock for both. Empty on a
    guarded server: a node's previews of its own making would be seen before the output gate has judged them.
    """
    if is_guarded():
        return {}
    sides = [shrink(frames, PREVIEW_WIDTH) for frames in (unsteered, steered)]
    moves = len(unsteered) > 1
    return {
        "images": [_save_picture(frames, fps) for frames in sides],
        "animated": (moves,),
        "safety_ab": [{"film": _save_film(np.concatenate(sides, axis=2), fps) if moves else None}],
    }


def preview_frames(frames: np.ndarray, fps: float) -> dict[str, Any]:
    """The ui of one picture or video; empty on a guarded server, as `preview_pair`."""
    if is_guarded():
        return {}
    return {"images": [_save_picture(frames, fps)], "animated": (len(frames) > 1,)}


def _save_picture(frames: np.ndarray, fps: float) -> ui.SavedResult:
    """A PNG, or an animated WebP, in the folder of temporary files."""
    name, images, temporary = f"safety_steering_{uuid.uuid4().hex}", to_image(frames), io.FolderType.temp
    if len(frames) == 1:
        return ui.ImageSaveHelper.save_images(images, name, temporary, cls=None, compress_level=1)[0]
    return ui.ImageSaveHelper.save_animated_webp(images, name, temporary, cls=None, fps=fps, **WEBP)


def _save_film(frames: np.ndarray, fps: float) -> ui.SavedResult:
    """An H.264 film in the folder of temporary files; an odd last line or column is left out."""
    height, width = (side - side % 2 for side in frames.shape[1:3])
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    name = f"safety_steering_{uuid.uuid4().hex}.mp4"
    to_video(frames[:, :height, :width], fps).save_to(str(folder / name), format=Types.VideoContainer.MP4, crf=16)
    return ui.SavedResult(name, "", io.FolderType.temp)
