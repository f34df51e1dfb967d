"""The picture of an evaluation: its rates with their intervals, unsteered above steered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .evaluation.rates import Evaluation
from .steering.chart import INK, QUIET, WARNING, as_picture, blank_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SAFE = "#2e8b57"
_BAR = 0.38


def draw_evaluation(evaluation: Evaluation) -> NDArray[np.uint8]:
    """Two panels: what should fall (ASR, pooled and by category), and what should stay high. RGB (H, W, 3), uint8."""
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
    _bars(lower, list(kept), list(kept.values()), _SAFE)
    lower.set_title("what is left of the videos: higher is better", fontsize=10, color=INK, loc="left")
    if not kept:
        lower.text(0.5, 0.5, "this judge cannot tell", transform=lower.transAxes, ha="center", color=WARNING)
    return as_picture(figure)


def _headline(plain: Mapping[str, Any], steered: Mapping[str, Any]) -> str:
    """It is the legend too: bars may fill a panel and leave no room for one."""
    return f"ASR {plain['asr']:.0%} unsteered (grey), {steered['asr']:.0%} {steered['setting']} (in colour)"


def _bars(axes: Axes, titles: Sequence[str], entries: Sequence[tuple[Any, Any, str]], color: str) -> None:
    for place, (plain, steered, name) in enumerate(entries):
        for row, shift, shade in ((plain, -_BAR / 2, QUIET), (steered, _BAR / 2, color)):
            value = row[name]
            if value is None:
                continue
            low, high = row[f"{name}_ci"]
            reach = [[max(0.0, value - low)], [max(0.0, high - value)]]
            axes.barh(place + shift, value, _BAR, color=shade, xerr=reach, ecolor=INK, capsize=2)
    axes.set_yticks(range(len(titles)), titles)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xticks(np.linspace(0, 1, 6), [f"{tick:.0%}" for tick in np.linspace(0, 1, 6)])
    axes.tick_params(labelsize=9, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
