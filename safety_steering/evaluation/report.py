"""An evaluation as Markdown table, as lines for a node, as CSV and as chart, and the folder of its files."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..files import write_atomically, write_result
from ..pictures import INK, QUIET, WARNING, as_picture, blank_figure
from .rates import Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SAFE = "#2e8b57"
BAR = 0.38  # height
MEASURES = {
    "asr": "ASR, unsafe prompts judged unsafe",
    "usable": "usable, safe with subject and background kept",
    "benign_fidelity": "benign fidelity, subject and element shown",
    "benign_loss": "benign loss",
    "benign_unsafe": "benign prompts judged unsafe",
}
NUMBERS = {
    "clip_score": "CLIP-Score, benign prompts",
    "clip_score_unsafe": "CLIP-Score, unsafe prompts",
    "frechet": "Fréchet distance of benign videos",
    "kid": "kernel distance of benign videos",
    "time_ratio": "sampling time, of unsteered",
}
CSV_COLUMNS = ("asr", "usable", "benign_fidelity", "benign_loss", "benign_unsafe", "clip_score", "clip_score_unsafe")
CSV_SINGLE = ("frechet", "kid", "kid_std", "n_unsafe", "n_benign", "task", "split", "direction", "hook_point")
CSV_LAST = ("intervention", "strength", "judge")
NOTHING = "-"


def as_markdown(evaluation: Evaluation) -> str:
    """A table with a column for each model and a line for each measure, and the notes below it."""
    lines = [["", *_settings(evaluation)], *_measures(evaluation)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    head, *body = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    ruler = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([head, ruler, *body, "", *_notes(evaluation)])


def as_lines(evaluation: Evaluation) -> str:
    """The same as lines without columns, for a node's text, which has a proportional font."""
    settings, lines = _settings(evaluation), []
    for title, *cells in _measures(evaluation):
        known = [f"{setting} {cell}" for setting, cell in zip(settings, cells, strict=True) if cell != NOTHING]
        lines.append(f"{title.strip()}: {', '.join(known)}")
    return "\n".join([*lines, "", *_notes(evaluation)])


def _settings(evaluation: Evaluation) -> list[str]:
    return [str(row["setting"]) for row in evaluation.rows]


def _measures(evaluation: Evaluation) -> list[list[str]]:
    """A line for each measure that is known for any model: its title and a cell a model."""
    rows = evaluation.rows
    asr, *others = [[title, *(_percent(row, name) for row in rows)] for name, title in MEASURES.items()]
    categories = rows[0]["categories"] if len(rows[0]["categories"]) > 1 else ()
    by_category = [[f"  ASR, {one}", *(_percent(row["categories"][one], "asr") for row in rows)] for one in categories]
    lines = [asr, *by_category, *others]
    lines += [[title, *(_number(row, name) for row in rows)] for name, title in NUMBERS.items()]
    return [line for line in lines if any(cell != NOTHING for cell in line[1:])]


def _notes(evaluation: Evaluation) -> list[str]:
    first = evaluation.rows[0]
    about = f"{first['n_unsafe']} unsafe and {first['n_benign']} benign prompts, 95 % intervals in brackets."
    judge = [f"Judge: {first['judge']}."] if first["judge"] else []
    return [about, *judge, *(f"Note: {note}" for note in evaluation.notes)]


def as_csv(evaluation: Evaluation) -> str:
    """One line a model and category; "all" is the category of the pooled line."""
    text = io.StringIO()
    columns = ["setting", "category"]
    for name in (*CSV_COLUMNS, "time_ratio"):
        columns += [name, f"{name}_low", f"{name}_high"]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*columns, "n", *CSV_SINGLE, *CSV_LAST])
    for row in evaluation.rows:
        for category, values in [("all", row), *row["categories"].items()]:
            cells: list[Any] = [row["setting"], category]
            for name in (*CSV_COLUMNS, "time_ratio"):
                cells += [values.get(name), *(values.get(f"{name}_ci") or (None, None))]
            pooled = values is row
            single = [row.get(name) if pooled else None for name in CSV_SINGLE[:5]]
            writer.writerow(
                [*cells, values["asr_n"], *single, *(row.get(name) for name in (*CSV_SINGLE[5:], *CSV_LAST))]
            )
    return text.getvalue()


def _percent(row: Mapping[str, Any], name: str) -> str:
    value, interval = row.get(name), row.get(f"{name}_ci")
    if value is None or interval is None:
        return NOTHING
    low, high = interval
    return f"{value:.1%} ({low:.1%} to {high:.1%})"


def _number(row: Mapping[str, Any], name: str) -> str:
    value, interval = row.get(name), row.get(f"{name}_ci")
    if value is None:
        return NOTHING
    if interval:
        return f"{value:.3g} ({interval[0]:.3g} to {interval[1]:.3g})"
    spread = row.get(f"{name}_std")
    return f"{value:.3g}" + (f" (spread {spread:.2g})" if spread is not None else "")


def draw_evaluation(evaluation: Evaluation) -> NDArray[np.uint8]:
    """Bars with intervals in two panels: ASR, pooled and by category; usable, benign fidelity. RGB uint8 (H, W, 3)."""
    plain, steered = evaluation.rows
    falls = {"all categories": (plain, steered)}
    if len(plain["categories"]) > 1:
        falls |= {name: (plain["categories"][name], steered["categories"][name]) for name in plain["categories"]}
    stays = {
        "usable": (plain, steered, "usable"),
        "benign fidelity": (plain, steered, "benign_fidelity"),
    }
    kept = {title: entry for title, entry in stays.items() if entry[1].get(entry[2]) is not None}
    heights = [len(falls), max(1, len(kept))]
    figure = blank_figure(1.6 + 0.55 * sum(heights))
    figure.suptitle(_headline(plain, steered), fontsize=11, color=INK)
    upper, lower = figure.subplots(2, 1, height_ratios=heights)
    _bars(upper, list(falls), [(before, after, "asr") for before, after in falls.values()], WARNING)
    upper.set_title("unsafe prompts judged unsafe: lower is better", fontsize=10, color=INK, loc="left")
    _bars(lower, list(kept), list(kept.values()), SAFE)
    lower.set_title("videos that still show their prompt: higher is better", fontsize=10, color=INK, loc="left")
    if not kept:
        lower.text(0.5, 0.5, "this judge cannot tell", transform=lower.transAxes, ha="center", color=WARNING)
    return as_picture(figure)


def _headline(plain: Mapping[str, Any], steered: Mapping[str, Any]) -> str:
    """The title, which is also the legend: bars may leave no room for one in a panel."""
    return f"ASR {plain['asr']:.0%} unsteered (grey), {steered['asr']:.0%} {steered['setting']} (in colour)"


def _bars(axes: Axes, titles: Sequence[str], entries: Sequence[tuple[Any, Any, str]], color: str) -> None:
    for position, (plain, steered, name) in enumerate(entries):
        for row, shift, shade in ((plain, -BAR / 2, QUIET), (steered, BAR / 2, color)):
            value = row[name]
            if value is None:
                continue
            low, high = row[f"{name}_ci"]
            reach = [[max(0.0, value - low)], [max(0.0, high - value)]]
            axes.barh(position + shift, value, BAR, color=shade, xerr=reach, ecolor=INK, capsize=2)
    axes.set_yticks(range(len(titles)), titles)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xticks(np.linspace(0, 1, 6), [f"{tick:.0%}" for tick in np.linspace(0, 1, 6)])
    axes.tick_params(labelsize=9, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)


@dataclass(frozen=True, eq=False)
class Saved:
    """The contents of table.md, table.csv and chart.png. picture: RGB uint8 (H, W, 3)."""

    table: str
    csv: str
    picture: NDArray[np.uint8]


def save_evaluation(
    evaluation: Evaluation, folder: str | os.PathLike[str], command: str, seeds: Sequence[int]
) -> Saved:
    """Write table.md, table.csv, results.json and chart.png. command, seeds: for results.json."""
    from PIL import Image

    folder = Path(folder)
    saved = Saved(as_markdown(evaluation), as_csv(evaluation), draw_evaluation(evaluation))
    png = io.BytesIO()
    Image.fromarray(saved.picture).save(png, "PNG")
    write_atomically(folder / "table.md", f"{saved.table}\n".encode())
    write_atomically(folder / "table.csv", saved.csv.encode())
    write_atomically(folder / "chart.png", png.getvalue())
    write_result(folder / "results.json", command, seeds, evaluation.rows)
    return saved
