"""Pictures of what was measured. matplotlib is imported inside, so that loading the pack stays quick."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .trace import ACTED, CallTrace, RunTrace

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, QUIET, WARNING = "#22303c", "#8a99a6", "#c0392b"
_WIDTH, _ROW, _DPI = 5.6, 4.8, 120  # stacked and narrow: it is shown inside a node


def draw_runs(traces: Sequence[RunTrace]) -> NDArray[np.uint8]:
    """One row a run: projections before and after steering over the steps, and how far tokens moved.

    Returns an RGB picture (H, W, 3), uint8.
    """
    figure = blank_figure(_ROW * len(traces))
    rows: Any = figure.subfigures(len(traces), 1, squeeze=False)[:, 0]
    for row, trace in zip(rows, traces, strict=True):
        _draw_run(row, trace)
    return as_picture(figure)


def draw_separability(table: Sequence[Mapping[str, Any]]) -> NDArray[np.uint8]:
    """One panel a category: AUC on validation over the hook points in model order, one line a sigma bin.

    table: rows as of `native_vector.Fitted`. Returns an RGB picture (H, W, 3), uint8.
    """
    categories = list(dict.fromkeys(row["category"] for row in table))
    places = list(dict.fromkeys(row["hook_point"] for row in table))
    figure = blank_figure(0.6 + 2.6 * len(categories))
    figure.suptitle("linear separability by depth: AUC on validation, 0.5 is chance", fontsize=11, color=INK)
    panels: Any = figure.subplots(len(categories), 1, sharex=True, squeeze=False)[:, 0]
    for panel, category in zip(panels, categories, strict=True):
        _draw_separability(panel, [row for row in table if row["category"] == category], places)
        panel.set_title(category, fontsize=10, color=INK, loc="left")
    panels[0].legend(fontsize=8, frameon=False, title="sigma", title_fontsize=8)
    panels[-1].set_xlabel("hook point, in model order", fontsize=10, color=INK)
    return as_picture(figure)


def _draw_separability(axes: Axes, rows: Sequence[Mapping[str, Any]], places: Sequence[str]) -> None:
    for low, high in dict.fromkeys(tuple(row["sigma"]) for row in rows):
        line = [row for row in rows if tuple(row["sigma"]) == (low, high)]
        values = [np.nan if row["auc"] is None else row["auc"] for row in line]
        at = [places.index(row["hook_point"]) for row in line]
        axes.plot(at, values, marker=".", label=f"{low:.2f} to {high:.2f}")
    if all(row["auc"] is None for row in rows):
        axes.text(0.5, 0.5, "no validation rows", transform=axes.transAxes, ha="center", color=WARNING)
    axes.axhline(0.5, color=QUIET, linewidth=0.8, linestyle=":")
    axes.set_ylim(min([0.4, *(row["auc"] for row in rows if row["auc"] is not None)]) - 0.02, 1.02)
    ticks = np.unique(np.linspace(0, len(places) - 1, min(8, len(places))).astype(int))
    axes.set_xticks(ticks, [shortened(places[tick]) for tick in ticks], rotation=30, ha="right")
    axes.tick_params(labelsize=8, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)


def shortened(hook_point: str) -> str:
    """A block's list and index; other hook points as they are."""
    parts = hook_point.split(".")
    return f"{parts[1]} {parts[2]}" if parts[0] == "block" else hook_point


def blank_figure(height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(_WIDTH, height), dpi=_DPI, layout="constrained")


def as_picture(figure: Any) -> NDArray[np.uint8]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba(), dtype=np.uint8)[..., :3]


def _draw_run(figure: Any, trace: RunTrace) -> None:
    acted = trace.status == ACTED
    text = "\n".join(textwrap.fill(line, 58) for line in (trace.summary(), *trace.warnings))
    figure.suptitle(text, fontsize=11, color=INK if acted and not trace.warnings else WARNING)
    if not acted:
        figure.text(0.5, 0.4, trace.status, ha="center", fontsize=26, color=WARNING)
        return
    projection, shift = figure.subplots(2, 1, height_ratios=[3, 2], sharex=True)
    _draw_projections(projection, trace.calls)
    _draw_shift(shift, trace.calls)
    shift.set_xlabel("noise level (sigma) of each model call; grey: left alone", fontsize=10, color=INK)


def _draw_projections(axes: Axes, calls: Sequence[CallTrace]) -> None:
    names = list(dict.fromkeys(name for call in calls for hook in call.hooks for name in hook.before))
    for number, name in enumerate(names):
        color = f"C{number}"
        before, after = (
            [_mean([getattr(hook, side)[name] for hook in call.hooks]) for call in calls]
            for side in ("before", "after")
        )
        axes.plot(before, color=color, linestyle=":", marker=".", label=f"{name} before")
        axes.plot(after, color=color, marker=".", label=f"{name} after")
    _finish(axes, calls, "projection: up is safe")
    axes.legend(fontsize=9, frameon=False)


def _draw_shift(axes: Axes, calls: Sequence[CallTrace]) -> None:
    axes.bar(range(len(calls)), [100 * _mean([hook.shift for hook in call.hooks], 0.0) for call in calls], color="C2")
    _finish(axes, calls, "shift, % of token norm")


def _finish(axes: Axes, calls: Sequence[CallTrace], title: str) -> None:
    axes.set_title(title, fontsize=10, color=INK, loc="left")
    axes.set_xlim(-0.5, len(calls) - 0.5)
    ticks = np.unique(np.linspace(0, len(calls) - 1, min(6, len(calls))).astype(int))
    axes.set_xticks(ticks, [f"{calls[tick].sigma:.2f}" for tick in ticks])
    axes.tick_params(labelsize=9, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    for index, call in enumerate(calls):
        if not call.hooks:
            axes.axvspan(index - 0.5, index + 0.5, color=QUIET, alpha=0.15, linewidth=0)


def _mean(values: Sequence[float], empty: float = float("nan")) -> float:
    return sum(values) / len(values) if values else empty
