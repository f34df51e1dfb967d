"""A labelled grid of pictures, to look at what a model made before trusting any number about it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def contact_sheet(
    videos: np.ndarray,
    labels: Sequence[str],
    path: str | Path,
    columns: int = 4,
    scale: int = 2,
    frames: int | None = None,
) -> None:
    """Write a PNG showing each video (n, frames, height, width, 3; uint8, or float in [0, 1]) as a row of its frames.

    labels: one caption a video, drawn above it. frames: how many frames to show, evenly spaced; None shows all.
    """
    from PIL import Image, ImageDraw, ImageFont

    if len(labels) != len(videos):
        raise ValueError(f"{len(videos)} videos but {len(labels)} labels")
    if videos.dtype != np.uint8:
        videos = np.round(np.clip(videos, 0, 1) * 255).astype(np.uint8)
    if frames is not None:
        videos = videos[:, np.linspace(0, videos.shape[1] - 1, frames).round().astype(int)]
    count, length, height, width, _ = videos.shape
    font = ImageFont.load_default(size=11)
    cell_width, cell_height = length * width * scale + 8, height * scale + 20
    sheet = Image.new("RGB", (cell_width * columns, cell_height * -(-count // columns)), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (video, label) in enumerate(zip(videos, labels, strict=True)):
        x, y = i % columns * cell_width + 4, i // columns * cell_height
        strip = np.concatenate(list(video), axis=1).repeat(scale, 0).repeat(scale, 1)
        text = label
        while font.getlength(text) > cell_width - 8:
            text = text[:-2] + "\u2026"
        draw.text((x, y + 3), text, fill="black", font=font)
        sheet.paste(Image.fromarray(strip), (x, y + 18))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
