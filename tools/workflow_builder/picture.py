"""Thumbnails of workflows: a diagram of what one does, or pictures of a run.

They are square like the cards of the template browser, which shows them 256 px wide. So the letters are large.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

SIZE = 768
SHARPER = 2  # drawn larger, then scaled down
MARGIN, GAP = 36, 34
LARGE, MEDIUM, SMALL = 80, 46, 38  # of letters
BACKGROUND, TEXT, GREEN, GREY, ARROW = "#17191c", "#f4f6f7", "#2a7d54", "#3a424b", "#57d08b"
QUIET_ARROW = "#9aa5ae"
TASKS = {"t2v": "text to video", "i2v": "image to video", "ti2v": "text or image to video", "t2i": "text to image"}
FIVE = (("Safety\nvector", "Fit and\ncarry", "Mix"), "Apply Safety Steering")
SAFE = (("Takes the\nbest vector", "Fits it\nonce", "Applies\nit"), "Safe Model")
ROW_TOPS, ROW_HEIGHTS = (252, 444, 606), (118, 88, 118)  # of a diagram's three rows
PICTURES_TOP, PICTURES_BOTTOM = 230, 40  # above and below the pictures of a run


class Canvas:
    """Draws in units of the finished picture."""

    def __init__(self) -> None:
        self._image = Image.new("RGB", (SIZE * SHARPER, SIZE * SHARPER), BACKGROUND)
        self._draw = ImageDraw.Draw(self._image)

    def picture(self) -> Image.Image:
        return self._image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)

    def title(self, title: str, subtitle: str) -> None:
        """What it is called, and below it in green what it does; both are made to fit."""
        self.text(MARGIN, 36, title, LARGE)
        self.text(MARGIN, 146, subtitle, MEDIUM, ARROW)

    def text(self, x: float, y: float, text: str, size: float, colour: str = TEXT) -> None:
        font = ImageFont.load_default(size * SHARPER)
        room = (SIZE - x - MARGIN) * SHARPER
        if (width := self._draw.textlength(text, font)) > room:
            font = ImageFont.load_default(size * SHARPER * room / width)
        self._draw.text((x * SHARPER, y * SHARPER), text, colour, font)

    def paste(self, picture: Image.Image, x: float, y: float, width: float) -> float:
        """Put a picture in, `width` wide; returns where it ends below."""
        height = width * picture.height / picture.width
        scaled = picture.convert("RGB").resize(
            (round(width * SHARPER), round(height * SHARPER)), Image.Resampling.LANCZOS
        )
        self._image.paste(scaled, (round(x * SHARPER), round(y * SHARPER)))
        return y + height

    def box(self, left: float, top: float, right: float, bottom: float, text: str, colour: str, size: float) -> None:
        corners = [SHARPER * edge for edge in (left, top, right, bottom)]
        self._draw.rounded_rectangle(corners, 16 * SHARPER, colour)
        middle = (SHARPER * (left + right) / 2, SHARPER * (top + bottom) / 2)
        font = ImageFont.load_default(size * SHARPER)
        self._draw.multiline_text(middle, text, TEXT, font, "mm", spacing=6 * SHARPER, align="center")

    def row(self, top: float, height: float, texts: Sequence[str], colours: Sequence[str], arrow: str) -> list[float]:
        """Boxes from left to right with arrows between them; returns where the middle of each is."""
        width = (SIZE - 2 * MARGIN - GAP * (len(texts) - 1)) / len(texts)
        middles = []
        for index, (text, colour) in enumerate(zip(texts, colours, strict=True)):
            left = MARGIN + index * (width + GAP)
            self.box(left, top, left + width, top + height, text, colour, min(SMALL, width / 4.5))
            if index:
                self.line([(left - GAP, top + height / 2), (left, top + height / 2)], arrow)
            middles.append(left + width / 2)
        return middles

    def line(self, points: Sequence[tuple[float, float]], colour: str = ARROW) -> None:
        """A line with an arrow head at its end."""
        self._draw.line([(x * SHARPER, y * SHARPER) for x, y in points], colour, 6 * SHARPER, joint="curve")
        (x0, y0), (x, y) = points[-2:]
        across, along = (0, 1) if x == x0 else (1, 0), (x > x0) - (x < x0) or (y > y0) - (y < y0)
        tip = 16 * along
        head = [(x, y)]
        for side in (-11, 11):
            head.append((x - tip * across[0] + side * across[1], y - tip * across[1] + side * across[0]))
        self._draw.polygon([(px * SHARPER, py * SHARPER) for px, py in head], colour)


def draw_workflow(name: str, model: str, stages: Sequence[str], five: bool = False) -> Image.Image:
    """A diagram of a workflow. name: ends in its task. stages: the steered samplers, in order. five: the five nodes."""
    carry, steering = FIVE if five else SAFE
    task = next(words for key, words in TASKS.items() if key in name.split("_"))
    canvas = Canvas()
    canvas.title(model.removesuffix(f" {task}"), task)
    above = canvas.row(ROW_TOPS[0], ROW_HEIGHTS[0], carry, [GREEN] * len(carry), ARROW)
    given = "Image,\nprompt" if "image to" in task else "Prompt"
    steps = [given, *(stage.replace(" ", "\n") or "Sample" for stage in stages), task.split()[-1].capitalize()]
    below = canvas.row(ROW_TOPS[2], ROW_HEIGHTS[2], steps, [GREY] * len(steps), QUIET_ARROW)
    canvas.line([(above[-1], ROW_TOPS[0] + ROW_HEIGHTS[0]), (above[-1], ROW_TOPS[1])])
    canvas.box(MARGIN, ROW_TOPS[1], SIZE - MARGIN, ROW_TOPS[1] + ROW_HEIGHTS[1], steering, GREEN, MEDIUM)
    for middle in below[1:-1]:
        canvas.line([(middle, ROW_TOPS[1] + ROW_HEIGHTS[1]), (middle, ROW_TOPS[2])])
    return canvas.picture()


def run_thumbnail(title: str, subtitle: str, pictures: Sequence[Image.Image], words: Sequence[str] = ()) -> Image.Image:
    """A title, and pictures of one height side by side, with words below them."""
    canvas = Canvas()
    canvas.title(title, subtitle)
    shapes = [one.width / one.height for one in pictures]
    below = SMALL + PICTURES_BOTTOM / 2 if words else 0
    room = SIZE - 2 * MARGIN - GAP * (len(pictures) - 1)
    height = min(SIZE - PICTURES_TOP - PICTURES_BOTTOM - below, room / sum(shapes))
    gap = (SIZE - height * sum(shapes)) / (len(pictures) + 1)
    x, y = gap, PICTURES_TOP + (SIZE - PICTURES_TOP - PICTURES_BOTTOM - below - height) / 2
    for number, (picture, shape) in enumerate(zip(pictures, shapes, strict=True)):
        end = canvas.paste(picture, x, y, height * shape)
        if words:
            canvas.text(x, end + PICTURES_BOTTOM / 2, words[number], SMALL)
        x += height * shape + gap
    return canvas.picture()
