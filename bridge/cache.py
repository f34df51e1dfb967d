"""Files that are only a cache: kept in the first folder that takes them, and no reason to fail if none does.

Models folders may be read-only, full, shared, unmounted, or owned by somebody else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import folder_paths

from ..safety_steering.errors import SafetySteeringError
from .folders import ACTIVATIONS, ALIGNMENTS, SUFFIX, output_folder
from .guarded_mode import private_folder

Result = TypeVar("Result")


def alignment_paths(key: str) -> list[Path]:
    """Where the alignment with this content hash is kept: in each models folder, then in the user's private one."""
    folders = [root / ALIGNMENTS.hidden for root in ALIGNMENTS.roots] + [private_folder() / ALIGNMENTS.folder]
    return [folder / f"{key}{SUFFIX}" for folder in folders]


def carried_paths(key: str) -> list[Path]:
    """Where the carried vector with this content hash is kept: beside the alignments."""
    return [path.with_name(f"carried_{path.name}") for path in alignment_paths(key)]


def activation_paths(name: str) -> list[Path]:
    """Where activations of this name are kept that nobody asked for: in the output folder, or a temporary one."""
    return [output_folder(ACTIVATIONS, name), Path(folder_paths.get_temp_directory()) / ACTIVATIONS / name]


def read_first(paths: Sequence[Path], read: Callable[[Path], Result]) -> Result | None:
    """What `read` gives for the first path that can be read, or None. A file that cannot be read is logged."""
    for path in paths:
        try:
            if path.exists():
                return read(path)
        except (SafetySteeringError, OSError) as error:
            logging.warning("Safety Steering: the kept file %s cannot be read and is made again. %s", path.name, error)
    return None


def write_first(paths: Sequence[Path], write: Callable[[Path], Result]) -> Result:
    """What `write` gives for the first path that it can write.

    Raises:
        OSError: no path can be written. The message names each folder and why.
    """
    failures = []
    for path in paths:
        try:
            return write(path)
        except OSError as error:
            failures.append(f"{path.parent}: {error.strerror or error}")
    raise OSError(f"no folder takes it ({'; '.join(failures)})")
