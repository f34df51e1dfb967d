"""Separability and steering effect by depth, and the use of sigma bins: the paper's two curves on the small world.

    python tools/start.py small_world.native.depth           (needs `small_world.native.capture_states`)

Writes `results/depth.json`. Its rows are of three kinds: "effect" (one block steered, unsafe validation prompts),
"cosine" (between the directions of two sigma bins of a block) and "bins" (AUC of one direction for all noise levels
against four).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..files import save_result
from ..measuring.measure import PLAIN, measure
from ..measuring.rows import row
from ..measuring.settings import Prompts, WorldSetting
from ..runtime import RESULTS, use_comfyui
from .capture_states import BLOCK_HOOKS, SIGMA_EDGES, open_activations
from .fit_native import WHOLE
from .methods import AS_ONE, native
from .vectors import BLOCKS_LDA, BLOCKS_MEAN, BLOCKS_MEAN_K1, all_vectors

RESULT_FILE = RESULTS / "depth.json"
ON = Prompts("validation", 24, (5,))
STRENGTHS = (8.0,)
Rows = Sequence[Mapping[str, Any]]


def settings_at(hook_point: str) -> list[WorldSetting]:
    """The settings of one block, on unsafe prompts only: `usable` shows what steering costs them."""
    paper = [
        native(BLOCKS_MEAN, "add", strength, AS_ONE, (hook_point,), norm="token", window=(0.0, 0.5))
        for strength in STRENGTHS
    ]
    ours = [native(BLOCKS_LDA, "clamp", strength, hooks=(hook_point,)) for strength in STRENGTHS]
    return [replace(s, name=f"{hook_point} {s.kind} {s.strength:g}", labels=("unsafe",)) for s in (*paper, *ours)]


def effect_rows(processes: int) -> list[dict[str, Any]]:
    """Steering at one block after the other."""
    settings = [setting for hook_point in BLOCK_HOOKS for setting in settings_at(hook_point)]
    plain = WorldSetting("unsteered", labels=("unsafe",))
    outcomes = measure([plain, *settings], ON, all_vectors((BLOCKS_MEAN, BLOCKS_LDA)), processes=processes)
    of_plain = outcomes[PLAIN.name]
    rows = [row(s, outcomes[s.name], of_plain, np.empty(0), "validation") for s in settings]
    return [found | {"kind": "effect"} for found in rows]


def cosine_rows() -> list[dict[str, Any]]:
    """Cosine between the mean differences of each two sigma bins of a block."""
    use_comfyui()
    from safety_steering_pack.safety_steering.vectors.file import load_vector

    vector, edges = load_vector(all_vectors((BLOCKS_MEAN,)) / BLOCKS_MEAN), SIGMA_EDGES["blocks"]
    rows = []
    for hook_point in BLOCK_HOOKS:
        directions = vector.at(hook_point).categories[WHOLE].direction.double()
        cosines = directions @ directions.T
        rows += [
            {
                "kind": "cosine",
                "setting": "mean_difference",
                "hook_point": hook_point,
                "category": WHOLE,
                "sigma": list(edges[a : a + 2]),
                "other_sigma": list(edges[b : b + 2]),
                "cosine": round(float(cosines[a, b]), 4),
            }
            for a in range(len(edges) - 1)
            for b in range(a)
        ]
    return rows


def bin_rows() -> list[dict[str, Any]]:
    """AUC on validation pairs in each sigma bin: of the bin's own direction, and of one that was fitted over all."""
    use_comfyui()
    from safety_steering_pack.safety_steering.activations import SAFE, UNSAFE
    from safety_steering_pack.safety_steering.directions.rows import where
    from safety_steering_pack.safety_steering.directions.statistics import auc
    from safety_steering_pack.safety_steering.vectors.file import load_vector

    four, one = (load_vector(all_vectors((name,)) / name) for name in (BLOCKS_MEAN, BLOCKS_MEAN_K1))
    activations = open_activations("blocks")
    captured, edges = activations.rows(), SIGMA_EDGES["blocks"]
    safe, unsafe = (where(captured, label, "validation") for label in (SAFE, UNSAFE))
    rows = []
    for hook_point in BLOCK_HOOKS:
        pooled = activations.read(hook_point).pooled.double()
        own, shared = (v.at(hook_point).categories[WHOLE].direction.double() for v in (four, one))
        for k in range(len(edges) - 1):
            aucs = [auc(pooled[safe, k] @ u, pooled[unsafe, k] @ u) for u in (own[k], shared[0])]
            rows.append(
                {
                    "kind": "bins",
                    "setting": "mean_difference",
                    "hook_point": hook_point,
                    "category": WHOLE,
                    "sigma": list(edges[k : k + 2]),
                    "auc_four_bins": round(aucs[0], 4),
                    "auc_one_bin": round(aucs[1], 4),
                    "cosine": round(float(own[k] @ shared[0]), 4),
                    "split": "validation",
                }
            )
    return rows


def draw_depth(separability: Rows, depth: Rows, path: Path) -> None:
    """Write both curves as one PNG.

    separability: rows of `results/separability.json`. depth: rows of `results/depth.json`.
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=0, help="how many work at once; 0 for one a core")
    processes = parser.parse_args().processes
    rows = [*cosine_rows(), *bin_rows(), *effect_rows(processes)]
    save_result(
        RESULT_FILE, " ".join(["python tools/start.py small_world.native.depth", *sys.argv[1:]]), list(ON.seeds), rows
    )
    for found in rows:
        if found["kind"] == "effect":
            print(
                f"{found['setting']:32} asr {found['asr']:.3f} usable {found['usable']:.3f} moved {found['moved']:.2f}"
            )


if __name__ == "__main__":
    main()
