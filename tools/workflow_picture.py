"""A workflow's thumbnail: a diagram of what it does, legible when small."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

SIZE = (960, 540)
SHARPER = 2  # drawn larger, then scaled down
MARGIN, ROW, HEIGHT, GAP = 36, (196, 390), 104, 26
BACKGROUND, TEXT, GREEN, GREY, ARROW = "#17191c", "#f4f6f7", "#2a7d54", "#3a424b", "#57d08b"
QUIET_ARROW = "#7b8791"
TASKS = {"t2v": "text to video", "i2v": "image to video", "ti2v": "text or image to video", "t2i": "text to image"}
CARRY = ("Portable\nsafety vector", "Fit on harmless\ncaptions", "Transfer to\nthis model", "Mix\ncategories")


def draw_workflow(name: str, model: str, stages: Sequence[str]) -> Image.Image:
    """A picture of 960 x 540. `name` ends in its task; `stages` are the samplers that are steered, in order."""
    task = next(words for key, words in TASKS.items() if key in name.split("_"))
    canvas = _Canvas()
    canvas.text(MARGIN, 40, model.removesuffix(f" {task}"), 50)
    canvas.text(MARGIN, 106, f"{task}, steered to safe content", 28, ARROW)
    above = canvas.row(ROW[0], CARRY, [GREEN] * len(CARRY), ARROW)
    given = "Models, image\nand prompt" if "image to" in task else "Models\nand prompt"
    steps = [given, *(stage or "Sample" for stage in stages), task.split()[-1].capitalize()]
    below = canvas.row(ROW[1], steps, [GREY] * len(steps), QUIET_ARROW)
    for middle in below[1:-1]:
        canvas.line([(above[-1], ROW[0] + HEIGHT), (above[-1], ROW[1] - 46), (middle, ROW[1] - 46), (middle, ROW[1])])
    canvas.box(below[1] - 74, ROW[1] - 66, below[-2] + 74, ROW[1] - 26, "Apply Safety Steering", GREEN, 18)
    return canvas.picture()


class _Canvas:
    """Draws in units of the finished picture."""

    def __init__(self) -> None:
        self._image = Image.new("RGB", (SIZE[0] * SHARPER, SIZE[1] * SHARPER), BACKGROUND)
        self._draw = ImageDraw.Draw(self._image)

    def picture(self) -> Image.Image:
        return self._image.resize(SIZE, Image.Resampling.LANCZOS)

    def text(self, x: float, y: float, text: str, size: float, colour: str = TEXT) -> None:
        self._draw.text((x * SHARPER, y * SHARPER), text, colour, ImageFont.load_default(size * SHARPER))

    def box(self, left: float, top: float, right: float, bottom: float, text: str, colour: str, size: float) -> None:
        corners = [SHARPER * edge for edge in (left, top, right, bottom)]
        self._draw.rounded_rectangle(corners, 14 * SHARPER, colour)
        middle = (SHARPER * (left + right) / 2, SHARPER * (top + bottom) / 2)
        font = ImageFont.load_default(size * SHARPER)
        self._draw.multiline_text(middle, text, TEXT, font, "mm", spacing=6 * SHARPER, align="center")

    def row(self, top: float, texts: Sequence[str], colours: Sequence[str], arrow: str) -> list[float]:
        """Boxes from left to right with arrows between them; returns where the middle of each is."""
        width = (SIZE[0] - 2 * MARGIN - GAP * (len(texts) - 1)) / len(texts)
        middles = []
        for place, (text, colour) in enumerate(zip(texts, colours, strict=True)):
            left = MARGIN + place * (width + GAP)
            self.box(left, top, left + width, top + HEIGHT, text, colour, 23)
            if place:
                self.line([(left - GAP, top + HEIGHT / 2), (left, top + HEIGHT / 2)], arrow)
            middles.append(left + width / 2)
        return middles

    def line(self, points: Sequence[tuple[float, float]], colour: str = ARROW) -> None:
        """A line with an arrow head at its end."""
        self._draw.line([(x * SHARPER, y * SHARPER) for x, y in points], colour, 4 * SHARPER, joint="curve")
        (x0, y0), (x, y) = points[-2:]
        across, along = (0, 1) if x == x0 else (1, 0), (x > x0) - (x < x0) or (y > y0) - (y < y0)
        tip = 10 * along
        head = [(x, y)]
        for side in (-7, 7):
            head.append((x - tip * across[0] + side * across[1], y - tip * across[1] + side * across[0]))
        self._draw.polygon([(px * SHARPER, py * SHARPER) for px, py in head], colour)
