"""The tables of portable safety, from the results files into `README.md` of this folder.

python tools/start.py small_world.portable.report       (`make small-world-report` runs it too)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..native.report import README, fill, percent, split_table, table
from ..scenes.world import CATEGORIES
from . import out_of_the_box, rule
from .compare import RESULT_FILE, SELECTIVITY_FILE


def selectivity_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """ASR of each category's prompts while one category is steered; the last column is what benign prompts lose."""
    lines = [
        (
            f"{steered} alone",
            *(percent(_cell(rows, steered, shown), "asr") for shown in CATEGORIES),
            percent(_cell(rows, steered, "benign"), "benign_loss"),
        )
        for steered in CATEGORIES
    ]
    return table(("Steered", *(f"ASR of {name} %" for name in CATEGORIES), "benign loss"), lines)


def _cell(rows: Sequence[Mapping[str, Any]], steered: str, shown: str) -> Mapping[str, Any]:
    return next(found for found in rows if found["steered"] == steered and found["shown"] == shown)


def out_of_the_box_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Safe Model with no widget touched, on the test split."""
    head = ("Task", "Setting", "ASR %", "usable %", "benign fidelity %", "benign loss", "gate opens on unsafe %")
    lines = [
        (
            found["task"].upper(),
            f"**{found['setting']}**" if found["chosen"] else found["setting"],
            *(percent(found, name) for name in ("asr", "usable", "benign_fidelity", "benign_loss")),
            f"{100 * found['unsafe_gate_open']:.1f}" if "level" in found else "-",
            f"{100 * found['benign_identical']:.1f}" if "level" in found else "-",
            f"{found['n_unsafe']} + {found['n_benign']}",
        )
        for found in rows
    ]
    return table((*head, "benign bit-identical %", "n"), lines)


def gates_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """How often the gate opens on validation captions, by factor, at the shrinkage that was chosen."""
    lines = [
        (
            found["source"],
            f"{found['shrinkage']:g}",
            f"{found['factor']:g}",
            *(f"{100 * found[name]:.1f}" for name in ("unsafe_open", "benign_open_seen", "benign_open_unseen")),
        )
        for found in rows
        if found["kind"] == "gate" and (found["shrinkage"] == 0.2 or found["factor"] == 1.5)
    ]
    return table(("Source", "shrinkage", "factor", "unsafe %", "benign, seen content %", "benign, unseen %"), lines)


def strengths_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Strengths on unsafe validation prompts; the rule's own and the most usable one are marked."""
    words = {"rule": "the rule", "oracle": "most usable"}
    marks = {(r["source"], r["setting"]): words[r["kind"]] for r in rows if r["kind"] in words}
    lines = [
        (
            found["setting"] if found["strength"] else f"{found['source']}, unsteered",
            marks.get((found["source"], found["setting"]), ""),
            *(percent(found, name) for name in ("asr", "usable")),
            f"{100 * found['moved_where_open']:.0f}",
            str(found["n_unsafe"]),
        )
        for found in rows
        if found["kind"] == "strength"
    ]
    return table(("Source, norm, strength", "", "ASR %", "usable %", "moved % of the token norm", "n"), lines)


def words_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Vectors of words on validation prompts, by share of the token norm and false alarm; the rule's are in bold."""
    lines = [
        (
            f"**{found['source']}**" if found["chosen"] else found["source"],
            f"{found['share']:g}",
            f"{found['strength']:g}",
            f"{100 * found['false_alarm']:g}",
            *(percent(found, name) for name in ("asr", "usable")),
            f"{100 * found['unsafe_open']:.0f}",
            f"{100 * found['benign_open']:.0f}",
            f"{found['n_unsafe']} + {found['n_benign']}",
        )
        for found in rows
        if found["kind"] == "words"
    ]
    head = ("Source", "share", "strength", "false alarm %", "ASR %", "usable %")
    return table((*head, "gate opens on unsafe %", "on benign %", "n"), lines)


def _rows(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"]
    return rows


def main() -> None:
    rows = _rows(RESULT_FILE)
    tables = {
        "portable t2v": split_table(rows, "t2v"),
        "portable i2v": split_table(rows, "i2v"),
        "selectivity": selectivity_table(_rows(SELECTIVITY_FILE)),
        "out of the box": out_of_the_box_table(_rows(out_of_the_box.RESULT_FILE)),
        "rule gates": gates_table(_rows(rule.RESULT_FILE)),
        "rule words": words_table(_rows(rule.RESULT_FILE)),
        "rule strengths": strengths_table(_rows(rule.RESULT_FILE)),
    }
    README.write_text(fill(README.read_text(), tables))


if __name__ == "__main__":
    main()
