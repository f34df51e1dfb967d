"""`make small-world-second`: the second generator from nothing: latents, decoder, data, generator, its measurement.

    python tools/start.py small_world.second.build          (about five hours of one core)

Finished steps are noted in the work folder and skipped; a step that was stopped is resumed. `--again` runs all again.
"""

from __future__ import annotations

from ..build import ask_again, run
from .paths import work_dir

STEPS = (
    ("second.train_decoder",),
    ("second.prepare_data",),
    ("second.train_generator",),
    ("second.evaluate",),
)


def main() -> int:
    run(STEPS, work_dir(), ask_again(__doc__))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
