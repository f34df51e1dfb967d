"""The picture at the top of the README: unsafe prompts without and with Safe Model, and harmless ones.

    python tools/start.py small_world.portable.hero

Safe Model as it comes, with harmless captions of this world, as in `out_of_the_box`. The prompts are of the validation
split and were chosen for the picture; how many come out so is what the results are for. Fails if one of them does not
come out as the picture claims.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..measuring.sampling import generate
from ..measuring.steered import steered
from ..models.judge import load_judge
from ..runtime import load_generator, load_vae
from ..scenes.render import caption
from ..scenes.splits import prompt_pairs
from .out_of_the_box import SHIPPED, safe_setting
from .vectors import vectors_folder

FILE = Path(__file__).resolve().parents[3] / "docs" / "images" / "hero.png"
PAIRS, SEED = 48, 11  # of the validation split, among which the prompts were chosen
UNSAFE, HARMLESS = (4, 27, 8, 13), (5, 11)
# in pixels of a picture that is shown at half its size
PICTURE, GAP, APART, LEFT, TOP = 244, 12, 44, 110, 54
LETTERS, LINE, LINES, CHARACTERS = 23, 28, 4, 21
INK, GREY, RED, GREEN = "#1f2328", "#59636e", "#b42318", "#18794e"


def main() -> None:
    pairs = prompt_pairs("validation", PAIRS, SEED)
    unsafe, harmless = [pairs[i].unsafe for i in UNSAFE], [pairs[i].safe for i in HARMLESS]
    scenes = unsafe + harmless
    setting, told = safe_setting(SHIPPED)
    print(told)
    model, vae, judge = load_generator(), load_vae(), load_judge()
    texts, seeds = [caption(scene) for scene in scenes], [scene.seed for scene in scenes]
    plain, safe = (generate(one, vae, texts, seeds) for one in (model, steered(model, setting, vectors_folder())))
    before, after = judge(plain), judge(safe)
    count = len(unsafe)
    problems = [
        *(f"{texts[i]}: already safe" for i in range(count) if not before.unsafe[i]),
        *(f"{texts[i]}: not safe and usable" for i in range(count) if not after.usable(scenes)[i]),
        *(f"{text}: changed" for i, text in enumerate(texts[count:], count) if not np.array_equal(plain[i], safe[i])),
    ]
    if problems:
        raise ValueError(f"The picture would not show what it says. {'; '.join(problems)}.")
    strip(plain[:, -1], safe[:, -1], texts, count).save(FILE, optimize=True)
    print(FILE)


def strip(plain: np.ndarray, safe: np.ndarray, texts: list[str], unsafe: int) -> Image.Image:
    """Pictures (n, height, width, 3) uint8 above each other, prompts below; `unsafe`: how many are unsafe."""
    lefts = [LEFT + i * (PICTURE + GAP) + (APART if i >= unsafe else 0) for i in range(len(texts))]
    tops = (TOP, TOP + PICTURE + GAP)
    size = (lefts[-1] + PICTURE, tops[1] + PICTURE + LINES * LINE + GAP)
    sheet = Image.new("RGB", size, "white")
    draw, font, large = ImageDraw.Draw(sheet), ImageFont.load_default(LETTERS), ImageFont.load_default(LETTERS + 5)
    draw.text((lefts[0], 8), "Unsafe prompts", RED, large)
    draw.text((lefts[unsafe], 8), "Harmless prompts: the same, bit for bit", GREEN, large)
    for top, words in zip(tops, ("without", "with\nSafe\nModel"), strict=True):
        draw.multiline_text((0, top + PICTURE / 2), words, GREY, font, "lm")
    for left, text, *shown in zip(lefts, texts, plain, safe, strict=True):
        for top, picture in zip(tops, shown, strict=True):
            scaled = Image.fromarray(picture).resize((PICTURE, PICTURE), Image.Resampling.LANCZOS)
            sheet.paste(scaled, (left, top))
        for number, line in enumerate(textwrap.wrap(text, CHARACTERS)[:LINES]):
            draw.text((left, tops[1] + PICTURE + 8 + number * LINE), line, INK, font)
    return sheet


if __name__ == "__main__":
    main()
