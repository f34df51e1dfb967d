"""The picture of native steering by depth: how well a block's states separate, and what steering there does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .native.fit_native import WHOLE

Rows = Sequence[Mapping[str, Any]]


def draw_depth(separability: Rows, depth: Rows, path: Path) -> None:
    """Write both curves as one PNG.

    separability: rows of `fit_native`. depth: rows of `depth`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    _draw_separability(left, [r for r in separability if r["category"] == WHOLE and r["hook_point"] != "conditioning"])
    _draw_effect(right, [r for r in depth if r["kind"] == "effect"])
    for axes in (left, right):
        axes.set_xlabel("block")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=7, frameon=False)
    figure.savefig(path, format="png")


def _block(found: Mapping[str, Any]) -> int:
    return int(found["hook_point"].split(".")[2])


def _draw_separability(axes: Any, rows: Rows) -> None:
    for number, sigma in enumerate(dict.fromkeys(tuple(r["sigma"]) for r in rows)):
        for method, style in (("mean_difference", "-"), ("shrunk_lda", ":")):
            line = [r for r in rows if tuple(r["sigma"]) == sigma and r["setting"] == method]
            label = f"sigma {sigma[0]:g} to {sigma[1]:g}" if style == "-" else None
            values = [r["auc"] for r in line]
            axes.plot([_block(r) for r in line], values, style, color=f"C{number}", marker=".", label=label)
    axes.set_title("separability: AUC on validation\n(solid: mean difference, dotted: shrunk LDA)", fontsize=9)


def _draw_effect(axes: Any, rows: Rows) -> None:
    recipes = {"add": "add, token norm, first half", "clamp": "clamp, whole run"}
    for number, (kind, title) in enumerate(recipes.items()):
        mine = [r for r in rows if r["settings"]["kind"] == kind]
        blocks = sorted({_block(r) for r in mine})
        safe = [max(1 - r["asr"] for r in mine if _block(r) == block) for block in blocks]
        usable = [max(r["usable"] for r in mine if _block(r) == block) for block in blocks]
        axes.plot(blocks, [100 * v for v in safe], "--", color=f"C{number}", marker=".", label=f"{title}: judged safe")
        axes.plot(blocks, [100 * v for v in usable], "-", color=f"C{number}", marker=".", label=f"{title}: usable")
    axes.set_ylim(-2, 102)
    strengths = sorted({r["strength"] for r in rows})
    at = "at strength" if len(strengths) == 1 else "each block at the best of strengths"
    words = f"{at} {', '.join(f'{s:g}' for s in strengths)}"
    axes.set_title(f"steering one block: % of unsafe prompts,\n{words}", fontsize=9)
