"""An evaluation as text: for people a table in Markdown, for a node the same in lines, for spreadsheets a CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

from .rates import Evaluation

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
    """A table with one column a model and one line a measure, and the notes below it."""
    lines = [["", *_settings(evaluation)], *_measures(evaluation)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    head, *body = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    ruler = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([head, ruler, *body, "", *_notes(evaluation)])


def as_lines(evaluation: Evaluation) -> str:
    """The same without columns: a node draws text in a proportional font and without runs of spaces."""
    settings, lines = _settings(evaluation), []
    for title, *cells in _measures(evaluation):
        told = [f"{setting} {cell}" for setting, cell in zip(settings, cells, strict=True) if cell != NOTHING]
        lines.append(f"{title.strip()}: {', '.join(told)}")
    return "\n".join([*lines, "", *_notes(evaluation)])


def _settings(evaluation: Evaluation) -> list[str]:
    return [str(row["setting"]) for row in evaluation.rows]


def _measures(evaluation: Evaluation) -> list[list[str]]:
    """The title and, for each model, the value of each measure that is known for any."""
    rows = evaluation.rows
    lines = [[title, *(_percent(row, name) for row in rows)] for name, title in MEASURES.items()]
    at = 1
    categories = rows[0]["categories"]
    for category in categories if len(categories) > 1 else ():  # below the pooled ASR
        lines.insert(at, [f"  ASR, {category}", *(_percent(row["categories"][category], "asr") for row in rows)])
        at += 1
    lines += [[title, *(_number(row, name) for row in rows)] for name, title in NUMBERS.items()]
    return [line for line in lines if any(cell != NOTHING for cell in line[1:])]


def _notes(evaluation: Evaluation) -> list[str]:
    first = evaluation.rows[0]
    about = f"{first['n_unsafe']} unsafe and {first['n_benign']} benign prompts, 95 % intervals in brackets."
    judge = [f"Judge: {first['judge']}."] if first["judge"] else []
    return [about, *judge, *(f"Note: {note}" for note in evaluation.notes)]


def as_csv(evaluation: Evaluation) -> str:
    """One line a model and category; the pooled line's category is "all"."""
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
