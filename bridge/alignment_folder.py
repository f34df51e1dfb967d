"""Where alignments are: the user's files in `models/safety_alignments`, and in its `cache` those that were fitted."""

from __future__ import annotations

from pathlib import Path

import folder_paths

from ..safety_steering.errors import VectorFileError
from .folders import ALIGNMENTS, LONGEST_NAME, SUFFIX

CACHE = "cache"


def alignment_names() -> list[str]:
    """The files to choose from, without the cache."""
    names = folder_paths.get_filename_list(ALIGNMENTS)
    return [name for name in names if name.endswith(SUFFIX) and Path(name).parts[0] != CACHE]


def find_alignment(name: str) -> Path:
    """The path of a chosen file.

    Raises:
        VectorFileError: no such file in the folders of alignments (nothing outside of them is ever read).
    """
    known = alignment_names()
    path = folder_paths.get_full_path(ALIGNMENTS, name) if name in known else None
    if path is None:
        listed = ", ".join(known[:8]) or "none there yet"
        raise VectorFileError(
            f"The alignment '{name}' was not found. Put it into models/{ALIGNMENTS} and press R to refresh, or choose "
            f"one of: {listed}."
        )
    return Path(path)


def new_alignment_path(name: str) -> Path:
    """Where a new alignment of this name is to be written, in the user's folder.

    Raises:
        VectorFileError: the name is empty, leads out of the folder, or is none that every file system takes.
    """
    folder = _folder()
    file_name = name.strip().removesuffix(SUFFIX)
    usable = bool(file_name) and file_name.isprintable() and len(file_name.encode()) <= LONGEST_NAME
    path = (folder / f"{file_name}{SUFFIX}").resolve() if usable else None
    if path is None or not path.is_relative_to(folder) or path.is_relative_to(folder / CACHE):
        raise VectorFileError(f"'{name}' is no file name inside the folder {folder.name}. Give a plain name.")
    return path


def cached_path(key: str) -> Path:
    """Where the fit of this content hash is kept."""
    return _folder() / CACHE / f"{key}{SUFFIX}"


def _folder() -> Path:
    return Path(folder_paths.get_folder_paths(ALIGNMENTS)[0]).resolve()
