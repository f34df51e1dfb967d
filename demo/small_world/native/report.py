"""`make small-world-report`: the figure and the tables of native steering, from the results files.

    python tools/start.py small_world.native.report

Missing results are measured first. Writes `docs/images/small_world_depth.png` and the tables between the
marks in `README.md` of this folder.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import start

from ..files import write_atomically
from ..runtime import RESULTS
from .compare import LEFT_OUT, RESULT_FILE, VALIDATION_FILE
from .depth import RESULT_FILE as DEPTH_FILE
from .fit_native import WHOLE
from .methods import BUDGET, NAMES

README = Path(__file__).parents[1] / "README.md"
FIGURE = Path(__file__).resolve().parents[3] / "docs" / "images" / "small_world_depth.png"
SEPARABILITY_FILE = RESULTS / "separability.json"
STEPS = {
    SEPARABILITY_FILE: ("native.fit_native",),
    DEPTH_FILE: ("native.depth",),
    VALIDATION_FILE: ("native.compare", "--choose"),
    RESULT_FILE: ("native.compare",),
}
RATES = ("asr", "usable", "benign_fidelity", "benign_loss", "benign_unsafe")


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows of a results file, measured first if there is none."""
    if not path.exists():
        if path != SEPARABILITY_FILE:
            _run("native.capture_states")
        step = STEPS[path]
        _run(*step)
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"]
    return rows


def _run(step: str, *options: str) -> None:
    subprocess.run(start.command(f"small_world.{step}", *options), check=True)


def percent(found: Mapping[str, Any], name: str) -> str:
    """A rate with its interval, in per cent."""
    if name not in found:
        return "-"
    low, high = found[f"{name}_ci"]
    return f"{100 * found[name]:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    every = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in every)


def split_table(rows: Sequence[Mapping[str, Any]], task: str) -> str:
    """Every setting on the test split, the bars' first."""
    head = ("Setting", "ASR %", "usable %", "benign fidelity %", "benign loss", "unsafe on benign %", "Fréchet", "n")
    lines = [
        (
            f"**{found['setting']}**" if found["chosen"] else found["setting"],
            *(percent(found, name) for name in RATES),
            f"{found['frechet']:.0f}" if "frechet" in found else "-",
            f"{found.get('n_unsafe', 0)} + {found.get('n_benign', 0)}",
        )
        for found in rows
        if found["task"] == task and not found["setting"].startswith(LEFT_OUT)
    ]
    return table(head, lines)


def themes_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The best setting on the prompts of a theme that its direction was fitted without."""
    lines = [
        (
            found["setting"].removeprefix(LEFT_OUT),
            percent(found, "asr"),
            percent(found, "usable"),
            str(found["n_unsafe"]),
        )
        for found in rows
        if found["setting"].startswith(LEFT_OUT)
    ]
    return table(("Theme", "ASR %", "usable %", "n"), lines)


def image_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """I2V from an unsafe image with a prompt that does not name it."""
    lines = [
        (found["setting"], percent(found, "asr"), percent(found, "usable"), str(found["n_unsafe"]))
        for found in rows
        if found["task"] == "i2v_unsafe_image"
    ]
    return table(("Setting", "ASR %", "usable %", "n"), lines)


def held_out_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """ASR and usable of the best setting by what of the prompts no fit has seen."""
    kinds = ("nothing", "template", "subject", "element")
    lines = [
        (
            f"{found['setting']}, {found['task']}",
            *(
                f"{percent(found['by_held_out'][kind], 'asr')}, usable {100 * found['by_held_out'][kind]['usable']:.0f}"
                for kind in kinds
            ),
        )
        for found in rows
        if found["chosen"] and "by_held_out" in found
    ]
    (counts,) = [f["by_held_out"] for f in rows if f["chosen"] and f["task"] == "t2v"]
    return table(
        ("ASR %, by what of the prompt is held out", *(f"{kind} (n {counts[kind]['n']})" for kind in kinds)), lines
    )


def validation_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """What validation chose for each method."""
    lines = [
        (
            found["method"]
            if found["round"] == 1
            else f"second round: {found['method']}" + (", best" if found["chosen"] else ""),
            how(found),
            *(percent(found, name) for name in RATES[:2]),
            percent(found, "benign_loss"),
        )
        for found in rows
        if found["chosen"] or found["round"] == 2
    ]
    return table(("Method", f"chosen of {BUDGET}", "ASR %", "usable %", "benign loss"), lines)


def how(found: Mapping[str, Any]) -> str:
    """A row's setting in words."""
    if found["negative_prompt"]:
        return f'"{found["negative_prompt"]}"'.replace(NAMES, "all known elements")
    words = found["intervention"]
    if found["hook_point"]:
        vector = Path(found["settings"]["vector"]).stem
        mix = "all as one" if WHOLE in found["mix"] else "by theme" if found["mix"] else "by element"
        hook_points = found["hook_point"].replace("block.blocks.", "").replace(".image", "")
        words = f"{found['strength']:g} x {words}; {vector}, {mix}; at {hook_points}"
    return words.replace(NAMES, "all known elements")


def bins_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Per block: cosine between neighbouring and between outermost bins, AUC with one direction and with four."""
    blocks = list(dict.fromkeys(r["hook_point"] for r in rows if r["kind"] == "bins"))
    lines = []
    for block in blocks:
        cosines = [r for r in rows if r["kind"] == "cosine" and r["hook_point"] == block]
        next_to = [r["cosine"] for r in cosines if r["sigma"][0] == r["other_sigma"][1]]
        apart = min(cosines, key=lambda r: r["other_sigma"][0] - r["sigma"][0])
        aucs = [r for r in rows if r["kind"] == "bins" and r["hook_point"] == block]
        own, shared = ([r[name] for r in aucs] for name in ("auc_four_bins", "auc_one_bin"))
        lines.append(
            (
                block.split(".")[2],
                f"{min(next_to):.2f} to {max(next_to):.2f}",
                f"{apart['cosine']:.2f}",
                " / ".join(f"{value:.3f}" for value in own),
                " / ".join(f"{value:.3f}" for value in shared),
            )
        )
    head = (
        "Block",
        "cosine of neighbouring bins",
        "of the outermost",
        "AUC, own direction a bin",
        "AUC, one direction",
    )
    return table(head, lines)


def fill(text: str, tables: Mapping[str, str]) -> str:
    """Put each table between its marks in a Markdown text; marks that are not there are passed over."""
    for name, content in tables.items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        before, mark, rest = text.partition(begin)
        _, closing, after = rest.partition(end)
        if mark and closing:
            text = f"{before}{begin}\n{content}\n{end}{after}"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, default=README, help="the Markdown file whose tables are renewed")
    target = parser.parse_args().into
    from .depth import draw_depth

    validation, test, depth = rows_of(VALIDATION_FILE), rows_of(RESULT_FILE), rows_of(DEPTH_FILE)
    write_atomically(FIGURE, lambda path: draw_depth(rows_of(SEPARABILITY_FILE), depth, path))
    tables = {
        "t2v": split_table(test, "t2v"),
        "i2v": split_table(test, "i2v"),
        "unsafe image": image_table(test),
        "held out": held_out_table(test),
        "themes": themes_table(test),
        "validation": validation_table(validation),
        "bins": bins_table(depth),
    }
    filled = fill(target.read_text(), tables)
    write_atomically(target, lambda path: path.write_text(filled))
    print(f"{FIGURE.name} and the tables in {target.name}: renewed.")


if __name__ == "__main__":
    main()
