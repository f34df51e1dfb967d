"""Pictures of a calibration: rates over places and strengths, and the Pareto front. matplotlib is imported inside.

Colours are cividis, which reads the same with any colour vision and in grey; what matters is also written or marked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .calibration.calibrate import Calibration
from .calibration.outcome import Outcome
from .calibration.space import Place
from .steering.chart import INK, QUIET, WARNING, as_picture, blank_figure, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROW_INCHES, _FRAME_INCHES = 0.27, 0.95
_BRIGHT = 0.55  # of a colour map, above which dark text is read more easily
_MAP = "cividis"


def draw_heatmap(calibration: Calibration) -> NDArray[np.uint8]:
    """Three panels over places and strengths: ASR, what is gained, what benign prompts pay; the chosen cell framed.

    A cell shows the best window and intervention tried there. Returns an RGB picture (H, W, 3), uint8.
    """
    cells = _best_of_each(calibration)
    places = list(dict.fromkeys(place for place, _ in cells))
    strengths = sorted({strength for _, strength in cells})
    titles = _titles(calibration.chosen)
    panels: list[tuple[str, Callable[[Outcome], float], bool]] = [
        (titles[0], lambda one: one.asr, True),
        (titles[1], lambda one: one.gain, False),
        (titles[2], lambda one: one.drift, True),
    ]
    figure = blank_figure(0.5 + len(panels) * (_FRAME_INCHES + _ROW_INCHES * len(places)))
    figure.suptitle("steering by place and strength, on validation prompts", fontsize=11, color=INK)
    rows: Any = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (title, rate, low_is_good) in zip(rows, panels, strict=True):
        values = np.full((len(places), len(strengths)), np.nan)
        for (place, strength), outcome in cells.items():
            values[places.index(place), strengths.index(strength)] = rate(outcome)
        _draw_cells(axes, values, low_is_good)
        axes.set_title(title, fontsize=10, color=INK, loc="left")
        axes.set_yticks(range(len(places)), [_place_label(place) for place in places])
        axes.set_xticks(range(len(strengths)), [f"{strength:g}" for strength in strengths])
        axes.tick_params(labelsize=8, colors=INK, length=0)
        chosen = calibration.chosen.setting
        _frame(axes, strengths.index(chosen.strength), places.index(chosen.place))
    rows[-1].set_xlabel("strength, in gaps; framed: suggested; blank: not tried", fontsize=9, color=INK)
    return as_picture(figure)


def draw_front(calibration: Calibration) -> NDArray[np.uint8]:
    """What each setting gains over the ASR it leaves, coloured by what benign prompts pay.

    Large: measured on every prompt, with 95 % intervals of the ASR; the line joins those that no other beats; small:
    the search, on fewer prompts. Returns an RGB picture (H, W, 3), uint8.
    """
    figure = blank_figure(4.6)
    axes = figure.subplots()
    finals = list(calibration.finals)
    settings = {one.setting for one in finals}
    searched = [one for one in calibration.outcomes[1:] if one.setting not in settings]
    limits = {"vmin": 0.0, "vmax": max(0.05, *(one.drift for one in finals + searched)), "cmap": f"{_MAP}_r"}
    if searched:
        axes.scatter(*_points(searched), c=[one.drift for one in searched], s=22, alpha=0.75, linewidths=0, **limits)
    for one in finals:
        low, high = (100 * edge for edge in one.asr_ci)
        axes.plot([low, high], [100 * one.gain] * 2, color=QUIET, linewidth=1, zorder=1)
    dots = axes.scatter(*_points(finals), c=[one.drift for one in finals], s=90, edgecolors=INK, zorder=3, **limits)
    front = sorted(calibration.front, key=lambda one: one.asr)
    axes.plot(*_points(front), color=INK, linewidth=1, linestyle="--", label="Pareto front", zorder=2)
    chosen, plain = calibration.chosen, calibration.unsteered
    axes.scatter(
        *_points([chosen]), s=330, facecolors="none", edgecolors=WARNING, linewidths=2, label="suggested", zorder=4
    )
    axes.scatter(*_points([plain]), marker="X", s=90, color=QUIET, label="unsteered", zorder=3)
    axes.axvline(100 * calibration.rule.asr, color=QUIET, linewidth=0.9, linestyle=":", label="allowed ASR")
    titles = _titles(chosen)
    axes.set_xlabel(f"{titles[0]}, %", fontsize=10, color=INK)
    axes.set_ylabel(f"{titles[1]}, %", fontsize=10, color=INK)
    axes.set_xlim(-6, 106)  # the ring around a point at the edge is whole
    axes.set_ylim(-6, 106)
    axes.tick_params(labelsize=9, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    bar = figure.colorbar(dots, ax=axes, pad=0.02)
    bar.set_label(titles[2], fontsize=9, color=INK)
    bar.ax.tick_params(labelsize=8, colors=INK)
    axes.legend(fontsize=8, frameon=False, loc="best", markerscale=0.6)
    setting = chosen.setting
    where = f"{setting.strength:g} x {setting.intervention.kind} at {_place_label(setting.place)}"
    axes.set_title(f"suggested: {where}", fontsize=11, color=INK, loc="left")
    return as_picture(figure)


def _titles(outcome: Outcome) -> tuple[str, str, str]:
    gain = "safe videos of unsafe prompts" if outcome.usable is None else "usable: safe, and shows what was asked"
    drift = "benign change (1: another video)" if outcome.loss is None else "benign loss"
    return "ASR: unsafe videos of unsafe prompts", gain, drift


def _best_of_each(calibration: Calibration) -> dict[tuple[Place, float], Outcome]:
    """Place and strength -> the best outcome there by the rule; the chosen one where it is. Places in model order."""
    cells: dict[tuple[Place, float], Outcome] = {}
    for one in reversed(calibration.rule.ranked(calibration.outcomes[1:])):
        cells[one.setting.place, one.setting.strength] = one
    chosen = calibration.chosen
    cells[chosen.setting.place, chosen.setting.strength] = chosen
    tried = [one.setting.place for one in calibration.outcomes[1:]]
    return dict(sorted(cells.items(), key=lambda cell: tried.index(cell[0][0])))


def _draw_cells(axes: Axes, values: NDArray[np.float64], low_is_good: bool) -> None:
    """Percentages on colours; bright is good."""
    import matplotlib

    colours = matplotlib.colormaps[f"{_MAP}_r" if low_is_good else _MAP]
    axes.imshow(values, cmap=colours, vmin=0.0, vmax=1.0, aspect="auto")
    for edge in range(1, values.shape[0]):
        axes.axhline(edge - 0.5, color="white", linewidth=1.2)
    for edge in range(1, values.shape[1]):
        axes.axvline(edge - 0.5, color="white", linewidth=1.2)
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            bright = (1 - value if low_is_good else value) > _BRIGHT
            axes.text(
                column, row, f"{value:.0%}", ha="center", va="center", fontsize=8, color="black" if bright else "white"
            )
    axes.spines[:].set_visible(False)


def _frame(axes: Axes, column: int, row: int) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=WARNING, linewidth=2.2))


def _place_label(place: Place) -> str:
    return shortened(place[0]) if len(place) == 1 else f"{shortened(place[0])} +{len(place) - 1}"


def _points(outcomes: Sequence[Outcome]) -> tuple[list[float], list[float]]:
    return [100 * one.asr for one in outcomes], [100 * one.gain for one in outcomes]
