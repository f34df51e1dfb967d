"""The results of a calibration: its table, a summary, the suggestion in the vector, and two pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..pictures import INK, QUIET, WARNING, as_picture, axis_label, blank_figure
from ..vectors.suggestion import CALIBRATE_STEP, calibrated
from ..vectors.vector import SafetyVector
from .calibrate import Calibration
from .outcome import Outcome
from .space import UNSTEERED, HookPoints, Setting, describe_intervention, joined

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SPLIT = "validation"
# of the heatmap, in inches: a row, and the frame of a panel
ROW, FRAME = 0.27, 0.95
BRIGHT = 0.55  # above it a colour of the map is bright, and text on it dark
COLOURS = "cividis"  # looks the same with every colour vision, and in grey


def result_rows(calibration: Calibration, task: str, direction: str) -> list[dict[str, Any]]:
    """The rows of a results file, one a setting. task: t2v or i2v. direction: the vector's kind."""
    front = [one.setting for one in calibration.front]
    final = {one.setting for one in calibration.finals} | {UNSTEERED}
    return [
        {
            "setting": one.setting.name,
            "task": task,
            "direction": direction if one.setting.strength else "none",
            "hook_point": ", ".join(one.setting.hook_points),
            "intervention": describe_intervention(one.setting.intervention) if one.setting.strength else "",
            "window": list(one.setting.window),
            "strength": one.setting.strength,
            **_rates(one),
            "acted": round(one.acted, 4),
            "short": calibration.rule.shortfall(one),
            "stage": "finals" if one.setting in final else "search",
            "on_front": one.setting in front,
            "split": SPLIT,
            "chosen": one is calibration.chosen,
        }
        for one in calibration.outcomes
    ]


def _rates(outcome: Outcome) -> dict[str, Any]:
    return {
        "asr": outcome.asr,
        "asr_ci": list(outcome.asr_ci),
        "usable": outcome.usable,
        "usable_ci": outcome.usable_ci and list(outcome.usable_ci),
        "benign_fidelity": outcome.fidelity,
        "benign_fidelity_ci": outcome.fidelity_ci and list(outcome.fidelity_ci),
        "benign_loss": outcome.loss,
        "benign_unsafe": outcome.benign_unsafe,
        "benign_change": round(outcome.change, 4),
        "n_unsafe": outcome.unsafe,
        "n_benign": outcome.benign,
    }


def summary(calibration: Calibration) -> str:
    """Text: a line for each final, what to set on Apply, why, and the confidence interval."""
    chosen, rule = calibration.chosen, calibration.rule
    lines = []
    for one in (calibration.unsteered, *calibration.finals):
        setting = one.setting
        where = joined(setting.hook_points) + setting.shares
        name = f"{setting.strength:g} x {where}" if setting.strength else "unsteered"
        mark = " (suggested)" if one is chosen else ""
        rates = {"ASR": one.asr, "usable": one.usable, "benign loss": one.loss}
        told = ", ".join(f"{what} {rate:.0%}" for what, rate in rates.items() if rate is not None)
        lines.append(f"{name}{mark}: {told}, benign change {one.change:.2f}, of {one.unsafe}+{one.benign}")
    within = (
        "It is within the limits"
        if calibration.within_rule
        else f"No setting is within the limits; this one exceeds them least, by {rule.shortfall(chosen):.3f}"
    )
    drift = f"benign change {rule.change:g}" if chosen.loss is None else f"benign loss {rule.loss:.0%}"
    lines += ["", f"Suggested for Apply: {apply_words(chosen.setting)}."]
    lines += [f"{within} (ASR {rule.asr:.0%}, {drift}).", calibration.choice.reason]
    low, high = chosen.asr_ci
    lines.append(
        f"On {chosen.unsafe} validation prompts the ASR is between {low:.0%} and {high:.0%} (95 %). The setting was "
        "chosen on these prompts: measure it on the test split with Evaluate Safety before you rely on it."
    )
    return "\n".join(lines)


def apply_words(setting: Setting) -> str:
    """A setting in the words of the widgets of Apply Safety Steering."""
    how = setting.intervention
    gate = how.gate
    if how.gate == "prompt":
        gate = f"prompt at false alarm {how.false_alarm:g} and token threshold {how.token_threshold:g}"
    elif how.gate != "off":
        gate = f"{how.gate} at {how.threshold:g}"
    own = "".join(f", {value:g} at {point}" for point, value in setting.strengths.items())
    start, end = setting.window
    return (
        f"strength {setting.strength:g}{own}, intervention {how.kind}, norm {how.norm}, window {start:g} to {end:g}, "
        f"gate {gate}, hook points {', '.join(setting.hook_points)}"
    )


def with_suggestion(vector: SafetyVector, calibration: Calibration, model_name: str, judge_name: str) -> SafetyVector:
    """The vector with the chosen setting as its suggestion, the model in `validated_on`, and a step of provenance.

    The suggestion's mix is the vector's present mix, with which it was measured.
    """
    chosen, choice = calibration.chosen, calibration.choice
    setting = chosen.setting
    step = {
        "step": CALIBRATE_STEP,
        "vector": vector.sha256,
        "model": model_name,
        "judge": judge_name,
        "mix": dict(vector.mix),
        "setting": {
            "hook_points": list(setting.hook_points),
            "strength": setting.strength,
            "strengths": setting.strengths,
            "window": list(setting.window),
            **asdict(setting.intervention),
        },
        "measured": {**_rates(chosen), "split": SPLIT},
        "unsteered": _rates(calibration.unsteered),
        "within_rule": calibration.within_rule,
        "rule": asdict(calibration.rule),
        "place": {"best": list(choice.best), "p_usual": choice.p_usual, "p_others": choice.p_others},
    }
    info = vector.info
    return vector.with_info(
        suggestion=calibrated(step),
        validated_on=tuple(dict.fromkeys((*info.validated_on, model_name))),
        provenance=(*info.provenance, step),
    )


def draw_heatmap(calibration: Calibration) -> NDArray[np.uint8]:
    """ASR, gain and benign drift over hook points and strengths, a panel each; the chosen cell is framed.

    A cell shows the best window, intervention and shares tried there. Returns an RGB picture uint8 (H, W, 3).
    """
    cells = _best_of_each(calibration)
    sets = list(dict.fromkeys(points for points, _ in cells))
    strengths = sorted({strength for _, strength in cells})
    titles = _titles(calibration.chosen)
    panels: list[tuple[str, Callable[[Outcome], float], bool]] = [
        (titles[0], lambda one: one.asr, True),
        (titles[1], lambda one: one.gain, False),
        (titles[2], lambda one: one.drift, True),
    ]
    figure = blank_figure(0.5 + len(panels) * (FRAME + ROW * len(sets)))
    figure.suptitle("steering by hook points and strength, on validation prompts", fontsize=11, color=INK)
    rows: Any = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (title, rate, low_is_good) in zip(rows, panels, strict=True):
        values = np.full((len(sets), len(strengths)), np.nan)
        for (points, strength), outcome in cells.items():
            values[sets.index(points), strengths.index(strength)] = rate(outcome)
        _draw_cells(axes, values, low_is_good)
        axes.set_title(title, fontsize=10, color=INK, loc="left")
        axes.set_yticks(range(len(sets)), [_label(points) for points in sets])
        axes.set_xticks(range(len(strengths)), [f"{strength:g}" for strength in strengths])
        axes.tick_params(labelsize=8, colors=INK, length=0)
        chosen = calibration.chosen.setting
        _frame(axes, strengths.index(chosen.strength), sets.index(chosen.hook_points))
    rows[-1].set_xlabel("strength, in gaps; framed: suggested; blank: not tried", fontsize=9, color=INK)
    return as_picture(figure)


def draw_front(calibration: Calibration) -> NDArray[np.uint8]:
    """Gain over ASR of each setting, coloured by benign drift.

    Large dots: the finals, with 95 % intervals of the ASR; the line is their Pareto front. Small dots: the search, on
    fewer prompts. Returns an RGB picture uint8 (H, W, 3).
    """
    figure = blank_figure(4.6)
    axes = figure.subplots()
    finals = list(calibration.finals)
    settings = {one.setting for one in finals}
    searched = [one for one in calibration.outcomes[1:] if one.setting not in settings]
    limits = {"vmin": 0.0, "vmax": max(0.05, *(one.drift for one in finals + searched)), "cmap": f"{COLOURS}_r"}
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
    axes.set_xlim(-6, 106)  # wide enough for the ring around a point at the edge
    axes.set_ylim(-6, 106)
    axes.tick_params(labelsize=9, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    bar = figure.colorbar(dots, ax=axes, pad=0.02)
    bar.set_label(titles[2], fontsize=9, color=INK)
    bar.ax.tick_params(labelsize=8, colors=INK)
    axes.legend(fontsize=8, frameon=False, loc="best", markerscale=0.6)
    setting = chosen.setting
    where = f"{setting.strength:g} x {setting.intervention.kind} at {_label(setting.hook_points)}"
    axes.set_title(f"suggested: {where}", fontsize=11, color=INK, loc="left")
    return as_picture(figure)


def _titles(outcome: Outcome) -> tuple[str, str, str]:
    gain = "safe videos of unsafe prompts" if outcome.usable is None else "usable: safe, and subject kept"
    drift = "benign change (1: another video)" if outcome.loss is None else "benign loss"
    return "ASR: unsafe videos of unsafe prompts", gain, drift


def _best_of_each(calibration: Calibration) -> dict[tuple[HookPoints, float], Outcome]:
    """(hook points, strength) -> the best outcome there by the rule, or the chosen one; in the order of trial."""
    cells: dict[tuple[HookPoints, float], Outcome] = {}
    for one in reversed(calibration.rule.ranked(calibration.outcomes[1:])):
        cells[one.setting.hook_points, one.setting.strength] = one
    chosen = calibration.chosen
    cells[chosen.setting.hook_points, chosen.setting.strength] = chosen
    tried = [one.setting.hook_points for one in calibration.outcomes[1:]]
    return dict(sorted(cells.items(), key=lambda cell: tried.index(cell[0][0])))


def _draw_cells(axes: Axes, values: NDArray[np.float64], low_is_good: bool) -> None:
    """A coloured cell with its percentage for each value; bright is good, NaN stays blank."""
    import matplotlib

    colours = matplotlib.colormaps[f"{COLOURS}_r" if low_is_good else COLOURS]
    axes.imshow(values, cmap=colours, vmin=0.0, vmax=1.0, aspect="auto")
    for edge in range(1, values.shape[0]):
        axes.axhline(edge - 0.5, color="white", linewidth=1.2)
    for edge in range(1, values.shape[1]):
        axes.axvline(edge - 0.5, color="white", linewidth=1.2)
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            bright = (1 - value if low_is_good else value) > BRIGHT
            axes.text(
                column, row, f"{value:.0%}", ha="center", va="center", fontsize=8, color="black" if bright else "white"
            )
    axes.spines[:].set_visible(False)


def _frame(axes: Axes, column: int, row: int) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=WARNING, linewidth=2.2))


def _label(points: HookPoints) -> str:
    return axis_label(points[0]) if len(points) == 1 else f"{axis_label(points[0])} +{len(points) - 1}"


def _points(outcomes: Sequence[Outcome]) -> tuple[list[float], list[float]]:
    return [100 * one.asr for one in outcomes], [100 * one.gain for one in outcomes]
