"""`make small-world`: rebuild all of the small world: data, models, judge, directions, tables.

    python tools/start.py small_world.build                 (about four hours on two idle cores)

Finished steps are noted in the cache and skipped; a long step that was stopped is resumed. `--again` runs all again.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import start

from .runtime import work_dir

STEPS = (
    ("models.train_vae", "--encoder-only"),
    ("models.prepare_data",),
    ("models.train_vae",),
    ("models.train_judge",),
    ("measuring.evaluate_vae",),
    ("models.train_generator",),
    ("measuring.evaluate_generator",),
    ("native.capture_states",),
    ("native.fit_native",),
    ("native.first_direction", "--sweep"),
    ("native.first_direction",),
    ("native.compare", "--choose"),
    ("native.compare",),
    ("native.acting",),
    ("native.depth",),
    ("native.report",),
    ("portable.source_vector",),
    ("portable.source_vector", "--anchors", "own"),
    ("portable.compare", "--choose"),
    ("portable.compare",),
    ("portable.rule",),
    ("portable.out_of_the_box",),
    ("portable.report",),
    ("native.figures",),
)


def stamp(folder: Path, step: tuple[str, ...]) -> Path:
    """The file in a work folder that marks a step as finished."""
    return folder / "built" / "".join(step)


def run(steps: Sequence[tuple[str, ...]], folder: Path, again: bool) -> None:
    """Run the steps (a module of `small_world` and its arguments) in order; those finished before only if `again`."""
    for number, step in enumerate(steps, 1):
        title, mark = f"[{number}/{len(steps)}] {' '.join(step)}", stamp(folder, step)
        if mark.exists() and not again:
            print(f"{title}: done before", flush=True)
            continue
        print(title, flush=True)
        started = time.monotonic()
        subprocess.run(start.command(f"small_world.{step[0]}", *step[1:]), check=True)
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.write_text(f"{time.monotonic() - started:.0f} s\n")


def ask_again(description: str | None) -> bool:
    """Read the command line: whether finished steps are to be run again."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--again", action="store_true", help="run finished steps again")
    return bool(parser.parse_args().again)


def main() -> int:
    run(STEPS, work_dir(), ask_again(__doc__))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
