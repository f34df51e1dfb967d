"""A progress bar with the time left, on stderr, for commands that may take longer than a few seconds."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

WATCHED, LOGGED = 0.1, 30.0  # seconds between two drawings: in a terminal, and in a log


@contextmanager
def progress_bar(unit: str) -> Iterator[Callable[[float, float], None]]:
    """A function that is told how many units are done, of how many. A new total begins a new count.

    Nothing is drawn before the first call. The bar stays as it was when the block ends, also by an error.
    """
    from tqdm import tqdm

    seconds = WATCHED if sys.stderr.isatty() else LOGGED
    how = {"miniters": 1, "mininterval": seconds, "maxinterval": seconds, "dynamic_ncols": True}
    with ExitStack() as open_bars:
        bar: Any = None

        def show(done: float, total: float) -> None:
            nonlocal bar
            if bar is None:
                bar = open_bars.enter_context(tqdm(total=total, unit=f" {unit}", file=sys.stderr, **how))
            elif total != bar.total or done < bar.n:
                bar.reset(total)
            bar.update(done - bar.n)

        yield show
