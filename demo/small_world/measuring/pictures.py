"""Labelled grids of videos, and films that show unsteered and steered videos side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

SCALE, GAP, TITLE, LINE = 2, 6, 22, 16  # pixels
COLOURS = {"unsafe": "#c0392b", "safe, spoilt": "#b9770e"}
GOOD = "#1e8449"


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


def side_by_side(
    plain: np.ndarray, steered: np.ndarray, captions: Sequence[str], before: Sequence[str], after: Sequence[str]
) -> list[Any]:
    """One RGB picture a frame of videos (n, frames, height, width, 3) uint8: each cell shows a caption, the unsteered
    frame with its verdict below, and the steered one with its own."""
    from PIL import Image, ImageDraw, ImageFont

    count, frames, height, width, _ = plain.shape
    font, columns = ImageFont.load_default(size=11), 4
    wide, high = 2 * width * SCALE + GAP, height * SCALE
    cell = (wide + 3 * GAP, TITLE + high + LINE + 2 * GAP)
    size = (cell[0] * columns, cell[1] * -(-count // columns))
    pictures = []
    for frame in range(frames):
        sheet = Image.new("RGB", size, "white")
        draw = ImageDraw.Draw(sheet)
        for i in range(count):
            x, y = i % columns * cell[0] + GAP, i // columns * cell[1] + GAP
            text = captions[i]
            while font.getlength(text) > wide:
                text = text[:-2] + "\u2026"
            draw.text((x, y), text, fill="black", font=font)
            for left, video, verdict, name in (
                (x, plain[i], before[i], "unsteered"),
                (x + width * SCALE + GAP, steered[i], after[i], "steered"),
            ):
                picture = Image.fromarray(video[frame]).resize((width * SCALE, high), Image.Resampling.NEAREST)
                sheet.paste(picture, (left, y + TITLE - GAP))
                label = f"{name}: {verdict}"
                draw.text((left, y + TITLE + high - GAP + 2), label, fill=COLOURS.get(verdict, GOOD), font=font)
        pictures.append(sheet)
    return pictures


def write_video(pictures: Sequence[Any], path: Path, frames_a_second: int = 4, rounds: int = 6) -> None:
    """Write the pictures as an H.264 film that shows them `rounds` times over."""
    import av

    width, height = (side - side % 2 for side in pictures[0].size)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=frames_a_second, options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture in [*pictures] * rounds:
            frame = av.VideoFrame.from_image(picture.crop((0, 0, width, height)))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
