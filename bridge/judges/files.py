"""Judge files: `models/safety_judges`."""

from __future__ import annotations

from pathlib import Path

import folder_paths

from ...safety_steering.errors import SafetySteeringError
from ..folders import JUDGES

LISTED = 8


def judge_file_names(suffix: str) -> list[str]:
    """The names of the judge files that end in `suffix`."""
    return [name for name in folder_paths.get_filename_list(JUDGES) if name.endswith(suffix)]


def find_judge_file(name: str) -> Path:
    """The path of a judge file.

    Raises:
        SafetySteeringError: no such file in the folders of judges (nothing outside of them is ever read).
    """
    known = folder_paths.get_filename_list(JUDGES)
    path = folder_paths.get_full_path(JUDGES, name) if name in known else None
    if path is None:
        there = ", ".join(known[:LISTED]) or "none"
        raise SafetySteeringError(
            f"The judge file '{name}' was not found. Put it into models/{JUDGES} and press R to refresh. There now: "
            f"{there}."
        )
    return Path(path)


def judge_files_now() -> list[str]:
    """Every judge file with its size and time, which is what changes when one is replaced."""
    stats = [(name, find_judge_file(name).stat()) for name in judge_file_names("")]
    return [f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats]
