"""An evaluation's files: table.md, table.csv, results.json and chart.png in one folder."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .evaluation.rates import Evaluation
from .evaluation.report import as_csv, as_markdown
from .evaluation_chart import draw_evaluation
from .files import write_atomically
from .results import write_result


@dataclass(frozen=True, eq=False)
class Saved:
    """What was written. picture: RGB (H, W, 3), uint8."""

    table: str
    csv: str
    picture: NDArray[np.uint8]


def save_evaluation(
    evaluation: Evaluation, folder: str | os.PathLike[str], command: str, seeds: Sequence[int]
) -> Saved:
    """Write an evaluation's files. command: how it was made, for results.json."""
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
