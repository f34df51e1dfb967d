"""Folders of results that can be taken up again: `output/<kind>/<name>`."""

from __future__ import annotations

from pathlib import Path

import folder_paths

from ..safety_steering.errors import SafetySteeringError

LONGEST_NAME = 180  # bytes
CALIBRATIONS = "safety_calibrations"


def output_folder(kind: str, name: str) -> Path:
    """The folder of this name among those of a kind, which need not be there yet.

    Raises:
        SafetySteeringError: the name is empty, leads out of the output directory, or is none that file systems take.
    """
    root = (Path(folder_paths.get_output_directory()) / kind).resolve()
    usable = bool(name.strip()) and name.isprintable() and len(name.encode()) <= LONGEST_NAME
    path = (root / name.strip()).resolve() if usable else root
    if path == root or not path.is_relative_to(root):
        raise SafetySteeringError(f"'{name}' is no folder name inside output/{kind}. Give a plain name.")
    return path


def size_of(path: Path) -> int:
    """How many bytes a file has, 0 if there is none: what changes when it is written or deleted."""
    return path.stat().st_size if path.exists() else 0
