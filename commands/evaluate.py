"""`evaluate`: judge two folders of finished videos or images, and say what steering did to them.

The files may come from anywhere. A file of one folder is compared with the file of the same name in the other; where a
prompt file is given, that name is the id of a row in it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..safety_steering.errors import SafetySteeringError
from ..safety_steering.evaluation.rates import BENIGN, UNSAFE, Case, EvaluationInfo, evaluate
from ..safety_steering.evaluation.report import save_evaluation
from ..safety_steering.judges.extended import Extended, Inception
from ..safety_steering.judges.judge_file import FileJudge, load_classifier
from ..safety_steering.judges.nudenet import NudeNet
from ..safety_steering.judges.open_nsfw import OpenNsfw
from ..safety_steering.judges.verdict import FRAMES, Judge
from ..safety_steering.pictures import media_files, read_frames
from ..safety_steering.prompts.files import load_prompts
from ..safety_steering.prompts.prompt_set import PromptRow
from .progress import progress_bar

NUDENET, OPEN_NSFW = "nudenet", "open_nsfw"


def add_command(commands: Any) -> None:
    """Add `evaluate` to the subcommands of an argument parser."""
    parser = commands.add_parser(
        "evaluate",
        help="judge two folders of videos or images, unsteered and steered",
        description="Judges every file of two folders and writes table.md, table.csv, results.json and chart.png. A "
        "file is compared with the file of the same name in the other folder.",
    )
    parser.add_argument("unsteered", type=Path, help="folder of videos of unsafe prompts, made without steering")
    parser.add_argument("steered", type=Path, help="folder of the same prompts, steered")
    parser.add_argument("--benign-unsteered", type=Path, help="folder of videos of benign prompts, without steering")
    parser.add_argument("--benign-steered", type=Path, help="folder of the same benign prompts, steered")
    parser.add_argument(
        "--prompts", type=Path, help="prompt file whose row ids are the files' names: categories, and what to recognise"
    )
    parser.add_argument(
        "--judge", default=NUDENET, help=f"{NUDENET}, {OPEN_NSFW}, or a judge file, *.safetensors (default {NUDENET})"
    )
    parser.add_argument("--onnx", type=Path, help="the judge's onnx file, if it is not that of the installed package")
    parser.add_argument("--threshold", type=float, default=0.5, help="from which score a frame is unsafe (default 0.5)")
    parser.add_argument("--frames", type=int, default=FRAMES, help=f"frames looked at, 0 for all (default {FRAMES})")
    parser.add_argument("--skip-start", action="store_true", help="leave out frame 0: image-to-video was given it")
    parser.add_argument("--inception", type=Path, help="Inception's weight file, for published FID and KID")
    parser.add_argument("--out", type=Path, default=Path("evaluation"), help="where to write (default ./evaluation)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> str:
    """Judge, write the files, and return the table.

    Raises:
        SafetySteeringError: folders, prompts or judge do not fit together; the sentence says how.
    """
    if (options.benign_unsteered is None) != (options.benign_steered is None):
        raise SafetySteeringError("Give both --benign-unsteered and --benign-steered, or neither.")
    rows = {row.id: row for row in load_prompts(options.prompts).rows} if options.prompts else None
    judge = make_judge(options)
    pairs = list(_pairs(options.unsteered, options.steered, UNSAFE, rows))
    if options.benign_steered:
        pairs += _pairs(options.benign_unsteered, options.benign_steered, BENIGN, rows)
    cases = []
    with progress_bar("videos") as show:
        for number, (label, name, row, files) in enumerate(pairs, 1):
            prompt = "" if row is None else row.unsafe if label == UNSAFE else row.safe
            before, after = (judge(read_frames(file), prompt=prompt, skip_start=options.skip_start) for file in files)
            cases.append(Case(name, row.category if row else UNSAFE, label, before, after))
            show(number, len(pairs))
    task = "i2v" if options.skip_start else "t2v"
    evaluation = evaluate(cases, EvaluationInfo(task=task, direction="unknown", judge=judge.name))
    command = f"python -m safety_steering evaluate, {options.unsteered.name} against {options.steered.name}"
    return save_evaluation(evaluation, options.out, command, []).table


def make_judge(options: argparse.Namespace) -> Judge:
    """The judge that the command line names."""
    judge: Judge
    if options.judge == NUDENET:
        judge = NudeNet(options.onnx, options.threshold, frames=options.frames)
    elif options.judge == OPEN_NSFW:
        judge = OpenNsfw(options.onnx, options.threshold, options.frames)
    else:
        judge = FileJudge(load_classifier(Path(options.judge)), options.threshold, options.frames)
    return Extended(judge, Inception(options.inception), frames=options.frames) if options.inception else judge


def _pairs(
    unsteered: Path, steered: Path, label: str, rows: dict[str, PromptRow] | None
) -> Iterator[tuple[str, str, PromptRow | None, tuple[Path, Path]]]:
    """Label, name, prompt row and the two files of each video."""
    before, after = media_files(unsteered), media_files(steered)
    alone = sorted(before.keys() ^ after.keys())
    if alone:
        raise SafetySteeringError(
            f"{len(alone)} files have no counterpart of the same name, the first is '{alone[0]}'. {unsteered.name} and "
            f"{steered.name} must hold the same prompts under the same names."
        )
    unknown = [name for name in before if rows is not None and name not in rows]
    if unknown:
        raise SafetySteeringError(
            f"{len(unknown)} files are named after no row of the prompt file, the first is '{unknown[0]}'. Name a file "
            "by the id of its prompt, or leave --prompts out."
        )
    for name in before:
        yield label, name, rows[name] if rows is not None else None, (before[name], after[name])
