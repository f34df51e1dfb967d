"""A workflow's thumbnail from what a run of it showed: a title, and pictures side by side, with words below them."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image
from workflow_builder.picture import GAP, MARGIN, SIZE, SMALL, Canvas

TOP, BOTTOM = 230, 40


def run_thumbnail(title: str, subtitle: str, pictures: Sequence[Image.Image], words: Sequence[str] = ()) -> Image.Image:
    """A square picture; `pictures` get one height that lets all of them stand side by side."""
    canvas = Canvas()
    canvas.title(title, subtitle)
    shapes = [one.width / one.height for one in pictures]
    below = SMALL + BOTTOM / 2 if words else 0
    room = SIZE - 2 * MARGIN - GAP * (len(pictures) - 1)
    height = min(SIZE - TOP - BOTTOM - below, room / sum(shapes))
    gap = (SIZE - height * sum(shapes)) / (len(pictures) + 1)
    x, y = gap, TOP + (SIZE - TOP - BOTTOM - below - height) / 2
    for number, (picture, shape) in enumerate(zip(pictures, shapes, strict=True)):
        end = canvas.paste(picture, x, y, height * shape)
        if words:
            canvas.text(x, end + BOTTOM / 2, words[number], SMALL)
        x += height * shape + gap
    return canvas.picture()
