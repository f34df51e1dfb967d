"""Charts of sampler runs. matplotlib is imported inside, so that loading the pack stays quick."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..pictures import INK, QUIET, WARNING, as_picture, blank_figure
from .trace import CallTrace, RunTrace

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_runs(traces: Sequence[RunTrace], notes: Sequence[str] = ()) -> NDArray[np.uint8]:
    """One row a run: projections before and after steering over the steps, and how far tokens moved.

    notes: shown above the first run.
    Returns an RGB picture (H, W, 3), uint8.
    """
    figure = blank_figure(4.8 * len(traces))
    rows: Any = figure.subfigures(len(traces), 1, squeeze=False)[:, 0]
    for row, trace in zip(rows, traces, strict=True):
        _draw_run(row, trace, notes if trace is traces[0] else ())
    return as_picture(figure)


def _draw_run(figure: Any, trace: RunTrace, notes: Sequence[str]) -> None:
    worked = trace.succeeded
    text = "\n".join(textwrap.fill(line, 58) for line in (*notes, trace.summary(), *trace.warnings))
    figure.suptitle(text, fontsize=11, color=INK if worked and not trace.warnings else WARNING)
    if not worked:
        figure.text(0.5, 0.4, trace.status, ha="center", fontsize=26, color=WARNING)
        return
    projection, shift = figure.subplots(2, 1, height_ratios=[3, 2], sharex=True)
    _draw_projections(projection, trace.calls)
    _draw_shift(shift, trace.calls)
    calls = "number of each text that was read" if trace.texts else "noise level (sigma) of each model call"
    shift.set_xlabel(f"{calls}; grey: left alone", fontsize=10, color=INK)


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
