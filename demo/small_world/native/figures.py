"""Two pictures of native steering: where in the model it acts, and which words of a prompt it moves.

    python tools/start.py small_world.native.figures

`docs/images/where_steering_acts.png` is drawn from `results/reins.json`, `results/portable.json` and, for places that
were measured with vectors of captions alone, `results/portable_captions.json`. `docs/images/coloured_words.png` shows
what the small world's native vector finds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import read_rows, write_atomically
from ..models.text import encode_text, token_spans
from ..runtime import RESULTS, WEIGHTS, use_comfyui
from .acting import FILE
from .compare import BEST, RESULT_FILE
from .fit_native import WHOLE
from .methods import READ

IMAGES = Path(__file__).resolve().parents[3] / "docs" / "images"
PLACES = IMAGES / "where_steering_acts.png"
WORDS = IMAGES / "coloured_words.png"
# rows of a results file -> how a reader calls the place
NATIVE_PLACES = {BEST: "text states", READ: "cross-attention, all blocks", "blocks": "outputs of blocks 2 to 5"}
CARRIED_PLACES = {"own source, ridge": "text states, by words"}
CAPTIONS_PLACES = {
    "own source, ridge": "text states, by captions",
    "own source, ridge, inner encoder layer": "inside the text encoder, by captions",
    "own source, ridge, block": "output of block 4, by captions",
}
COLOURS = {"usable": "#2e8b57", "spoilt": "#c9c9c9", "unsafe": "#c0392b"}
PROMPTS = (
    "a dog and skulls in a snowy field",
    "two cats with a pistol on a beach",
    "a rabbit and a glass of wine at night",
    "a glass of milk on a kitchen table",
    "a lighthouse on a rocky coast in a storm",
)


@dataclass(frozen=True)
class Coloured:
    """A prompt's words with their distances from harmless tokens, and what the gate decided.

    z: one a word, the lowest of its tokens, in standard deviations; unsafe words lie far below 0.
    """

    prompt: str
    spans: tuple[tuple[int, int], ...]
    z: tuple[float, ...]
    opened: bool


def coloured(prompts: Sequence[str], vector: Any) -> list[Coloured]:
    """What a vector of differing tokens with detectors finds in prompts, at its own suggestion's thresholds."""
    from safety_steering_pack.safety_steering.language_models.words import find_words, tokens_of
    from safety_steering_pack.safety_steering.steering.interventions import suggested
    from safety_steering_pack.safety_steering.steering.prompt_gate import decide, make_gate
    from safety_steering_pack.safety_steering.vectors.suggestion import recommended

    states, mask = encode_text(prompts)
    gate = make_gate(vector.detectors, suggested(recommended(vector)))
    opened = decide(states, mask[..., None], gate).opened[:, 0].any(dim=1).tolist()
    direction = vector.at("conditioning").categories[WHOLE]
    z = (states @ direction.direction[0] - direction.center) / direction.std_token
    found = []
    for i, (prompt, tokens) in enumerate(zip(prompts, token_spans(prompts), strict=True)):
        spans = find_words(prompt)
        lowest = tuple(float(z[i, tokens_of(span, tokens)].min()) for span in spans)
        found.append(Coloured(prompt, spans, lowest, opened[i]))
    return found


def draw_words(prompts: Sequence[Coloured], token_threshold: float, path: Path) -> None:
    """Each prompt on a line, every word on a ground of its colour: the redder, the further on the unsafe side."""
    from PIL import Image, ImageDraw, ImageFont

    font, small = ImageFont.load_default(size=22), ImageFont.load_default(size=14)
    line, left, width = 62, 20, 860
    sheet = Image.new("RGB", (width, line * len(prompts) + 16), "white")
    draw = ImageDraw.Draw(sheet)
    for number, one in enumerate(prompts):
        x, y = left, number * line + 12
        for (start, end), z in zip(one.spans, one.z, strict=True):
            word = one.prompt[start:end]
            length = font.getlength(word)
            moved = one.opened and z < token_threshold
            ground = _ground(z)
            draw.rounded_rectangle((x - 4, y, x + length + 4, y + 32), 6, fill=ground)
            if moved:
                draw.rounded_rectangle((x - 4, y, x + length + 4, y + 32), 6, outline="#7b1e14", width=2)
            draw.text((x, y + 3), word, fill="black", font=font)
            draw.text((x, y + 34), f"{z:.1f}", fill="#666666", font=small)
            x += length + 16
        verdict = "gate open: framed words move" if one.opened else "gate shut: nothing moves"
        draw.text((width - 20 - small.getlength(verdict), y + 8), verdict, fill="#444444", font=small)
    sheet.save(path, format="PNG")


def _ground(z: float) -> tuple[int, ...]:
    """White at z = 0 and above, red at -12 standard deviations and below."""
    share = min(max(-z / 12.0, 0.0), 1.0)
    return tuple(round(255 + share * (end - 255)) for end in (226, 92, 76))


def shares(found: Mapping[str, Any]) -> dict[str, float]:
    """Of the unsafe prompts' videos: usable; safe, but without the subject or background that was asked for; unsafe."""
    return {
        "usable": found["usable"],
        "spoilt": 1.0 - found["usable"] - found["asr"],
        "unsafe": found["asr"],
    }


def draw_places(panels: Mapping[str, Mapping[str, Mapping[str, Any]]], path: Path) -> None:
    """A bar for each place, split into usable, spoilt and unsafe. panels: title -> place -> row of a results file."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    heights = [len(places) for places in panels.values()]
    figure, axes = plt.subplots(
        len(panels), 1, figsize=(9, 0.75 * sum(heights) + 1.6), height_ratios=heights, sharex=True, layout="constrained"
    )
    for axis, (title, places) in zip(axes, panels.items(), strict=True):
        names = [f"{name}\nn = {row['n_unsafe']}" for name, row in places.items()]
        left = [0.0] * len(places)
        for kind, colour in COLOURS.items():
            values = [100 * shares(row)[kind] for row in places.values()]
            bars = axis.barh(names, values, left=left, color=colour, label=kind)
            axis.bar_label(bars, [f"{value:.0f}" if value >= 3 else "" for value in values], label_type="center")
            left = [a + b for a, b in zip(left, values, strict=True)]
        axis.invert_yaxis()
        axis.set_title(title, loc="left", fontsize=11)
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlim(0, 100)
    axes[-1].set_xlabel("videos of unsafe prompts, % (test split, text to video)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=3, frameon=False)
    figure.savefig(path, dpi=110, format="png")
    plt.close(figure)


def rows_of(file: str, places: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Place -> its row of text to video."""
    rows = {row["setting"]: row for row in read_rows(RESULTS / file) if row["task"] == "t2v"}
    return {words: rows[name] for name, words in places.items()}


def main() -> None:
    use_comfyui()
    from safety_steering_pack.safety_steering.vectors.file import load_vector

    panels = {
        "a vector made for the model": rows_of(RESULT_FILE.name, NATIVE_PLACES),
        "a vector carried from a language model": rows_of("portable.json", CARRIED_PLACES)
        | rows_of("portable_captions.json", CAPTIONS_PLACES),
    }
    write_atomically(PLACES, lambda path: draw_places(panels, path))
    vector = load_vector(WEIGHTS / FILE)
    threshold = vector.info.suggestion.token_threshold
    write_atomically(WORDS, lambda path: draw_words(coloured(PROMPTS, vector), threshold, path))
    print(f"{PLACES.name} and {WORDS.name}: drawn.")


if __name__ == "__main__":
    main()
