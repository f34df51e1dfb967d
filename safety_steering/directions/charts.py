"""Charts of AUC by depth: of the layers of an extraction, and of the hook points of a native fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..pictures import INK, QUIET, WARNING, as_picture, axis_label, blank_figure
from ..vectors.vector import WHOLE
from .portable import Extracted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LINES = (
    ("unsafe from safe", lambda row: row["auc"], "C0", "-"),
    ("fitted without its category", lambda row: row["left_out_auc"], "C1", "-"),
    ("chance: labels shuffled, 95th percentile", lambda row: row["shuffled_auc"], QUIET, ":"),
)
_VALENCE = (
    ("valence kept", lambda row: row["with_valence"]["valence_auc"], "C3", "--"),
    ("as in the vector", lambda row: row["valence_auc"], "C2", "-"),
)


def draw_sweep(extracted: Extracted) -> NDArray[np.uint8]:
    """Three panels over the layers: mean over categories, each category, valence. RGB picture (H, W, 3), uint8."""
    table, layer = extracted.table, extracted.layer
    categories = [name for name in dict.fromkeys(row["category"] for row in table) if name != WHOLE]
    figure = blank_figure(9.6)
    means, each, valence = figure.subplots(3, 1, sharex=True)
    figure.suptitle(f"{extracted.vector.info.model_name}: AUC on held-out pairs", fontsize=11, color=INK)
    rows = [row for row in table if row["category"] != WHOLE]
    for label, value, color, style in _LINES:
        _plot(means, rows, value, label=label, color=color, linestyle=style)
    _finish(means, "mean over categories", layer)
    for name in categories:
        _plot(each, [row for row in rows if row["category"] == name], lambda row: row["auc"], label=name)
    _finish(each, "each category: unsafe from safe", layer)
    if any(row["valence_auc"] is not None for row in rows):
        for label, value, color, style in _VALENCE:
            _plot(valence, rows, value, label=label, color=color, linestyle=style)
    else:
        valence.text(0.5, 0.5, "no negative twins", transform=valence.transAxes, ha="center", color=WARNING)
    _finish(valence, "valence: safe from negative twins; 0.5 is no valence component", layer)
    valence.set_xlabel(f"layer; the vector is of layer {layer}", fontsize=10, color=INK)
    return as_picture(figure)


def _plot(axes: Axes, rows: Sequence[Mapping[str, Any]], value: Any, **style: Any) -> None:
    """Plot the mean of a value over the rows of each layer; a gap where no row has one."""
    layers = sorted({row["layer"] for row in rows})
    found = [[value(row) for row in rows if row["layer"] == layer and value(row) is not None] for layer in layers]
    axes.plot(layers, [np.mean(values) if values else np.nan for values in found], marker=".", **style)


def _finish(axes: Axes, title: str, layer: int) -> None:
    axes.set_title(title, fontsize=10, color=INK, loc="left")
    axes.axhline(0.5, color=QUIET, linewidth=0.8, linestyle=":")
    axes.axvline(layer, color=INK, linewidth=0.8, alpha=0.5)
    axes.set_ylim(top=1.02)
    axes.tick_params(labelsize=8, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, frameon=False, ncols=2)


def draw_separability(table: Sequence[Mapping[str, Any]]) -> NDArray[np.uint8]:
    """One panel a category: AUC on validation over the hook points in model order, one line a sigma bin.

    table: as of `native.Fitted`. Returns an RGB picture (H, W, 3), uint8.
    """
    categories = list(dict.fromkeys(row["category"] for row in table))
    hook_points = list(dict.fromkeys(row["hook_point"] for row in table))
    figure = blank_figure(0.6 + 2.6 * len(categories))
    figure.suptitle("linear separability by depth: AUC on validation, 0.5 is chance", fontsize=11, color=INK)
    panels: Any = figure.subplots(len(categories), 1, sharex=True, squeeze=False)[:, 0]
    for panel, category in zip(panels, categories, strict=True):
        _draw_separability(panel, [row for row in table if row["category"] == category], hook_points)
        panel.set_title(category, fontsize=10, color=INK, loc="left")
    panels[0].legend(fontsize=8, frameon=False, title="sigma", title_fontsize=8)
    panels[-1].set_xlabel("hook point, in model order", fontsize=10, color=INK)
    return as_picture(figure)


def _draw_separability(axes: Axes, rows: Sequence[Mapping[str, Any]], hook_points: Sequence[str]) -> None:
    for low, high in dict.fromkeys(tuple(row["sigma"]) for row in rows):
        line = [row for row in rows if tuple(row["sigma"]) == (low, high)]
        values = [np.nan if row["auc"] is None else row["auc"] for row in line]
        at = [hook_points.index(row["hook_point"]) for row in line]
        axes.plot(at, values, marker=".", label=f"{low:.2f} to {high:.2f}")
    if all(row["auc"] is None for row in rows):
        axes.text(0.5, 0.5, "no validation rows", transform=axes.transAxes, ha="center", color=WARNING)
    axes.axhline(0.5, color=QUIET, linewidth=0.8, linestyle=":")
    axes.set_ylim(min([0.4, *(row["auc"] for row in rows if row["auc"] is not None)]) - 0.02, 1.02)
    ticks = np.unique(np.linspace(0, len(hook_points) - 1, min(8, len(hook_points))).astype(int))
    axes.set_xticks(ticks, [axis_label(hook_points[tick]) for tick in ticks], rotation=30, ha="right")
    axes.tick_params(labelsize=8, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
