"""A workflow's thumbnail from what a run of it showed: a title, and pictures side by side."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

SIZE = (960, 540)
MARGIN, TOP = 28, 128
BACKGROUND, TEXT, ACCENT = "#17191c", "#f4f6f7", "#57d08b"


def run_thumbnail(title: str, subtitle: str, pictures: Sequence[Image.Image]) -> Image.Image:
    """A picture of 960 x 540; `pictures` are scaled to one height that lets all of them stand side by side."""
    card = Image.new("RGB", SIZE, BACKGROUND)
    draw = ImageDraw.Draw(card)
    draw.text((MARGIN, 24), title, TEXT, ImageFont.load_default(44))
    draw.text((MARGIN, 80), subtitle, ACCENT, ImageFont.load_default(25))
    room = SIZE[0] - MARGIN * (len(pictures) + 1)
    height = min(SIZE[1] - TOP - MARGIN, room / sum(one.width / one.height for one in pictures))
    scaled = [one.convert("RGB").resize((round(height * one.width / one.height), round(height))) for one in pictures]
    gap = (SIZE[0] - sum(one.width for one in scaled)) / (len(scaled) + 1)
    x = gap
    for one in scaled:
        card.paste(one, (round(x), TOP))
        x += one.width + gap
    return card
