"""The bar that long commands draw on stderr."""

from __future__ import annotations

import re

import pytest
from safety_steering_pack.commands import progress
from safety_steering_pack.commands.progress import progress_bar


def test_it_counts_and_says_how_much_time_is_left(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LOGGED", 0.0)
    with progress_bar("videos") as show:
        for done in range(1, 5):
            show(done, 4)
    told = capsys.readouterr()
    assert not told.out
    drawn = told.err.split("\r")
    assert re.search(r" 50%.* 2/4 \[[\d:]+<[\d:?]+, .* videos", "\n".join(drawn))
    assert re.search(r"100%.* 4/4 \[", drawn[-1])


def test_a_log_is_not_filled(capsys):
    with progress_bar("steps") as show:
        for done in range(1, 1001):
            show(done, 1000)
    assert capsys.readouterr().err.count("\r") <= 4


def test_a_new_total_begins_a_new_count(capsys):
    with progress_bar("steps") as show:
        for done, total in ((1, 2), (2, 2), (1, 8), (3, 8)):
            show(done, total)
    assert " 3/8 [" in capsys.readouterr().err


def stop_after_one() -> None:
    with progress_bar("steps") as show:
        show(1, 2)
        raise KeyboardInterrupt


def test_an_error_goes_through_and_leaves_the_bar(capsys):
    with pytest.raises(KeyboardInterrupt):
        stop_after_one()
    assert " 1/2 [" in (told := capsys.readouterr().err)
    assert told.endswith("\n")
