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


def _rows(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"]
    return rows


def main() -> None:
    rows = _rows(RESULT_FILE)
    tables = {
        "portable t2v": split_table(rows, "t2v"),
        "portable i2v": split_table(rows, "i2v"),
        "selectivity": selectivity_table(_rows(SELECTIVITY_FILE)),
    }
    README.write_text(fill(README.read_text(), tables))


if __name__ == "__main__":
    main()
