"""Files in the folders that clients read of which nobody knows how they came there: not shown, and put aside.

A pack can write from a thread of its own long after its job has ended. What no record knows in the output and temp
folders is moved into a private folder: when the server starts, before each job, and when somebody asks for it. In the
input folder and the users' folders, what was there at the start and what requests have written is shown, and no more.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ...guardrail.evidence import SUFFIX, is_known, matches, sidecar_of
from ...guardrail.plain_text import shown
from ..folders import ACTIVATIONS, CALIBRATIONS
from .jobs.folder_watch import FolderWatch, Version, is_plain_file, version_of

SETTLED = 2.0  # seconds after which a folder's time stamp tells that nothing was added since
OWN = {ACTIVATIONS, CALIBRATIONS}  # folders of this pack's nodes: files of states, which are never shown
OWN_SUFFIXES = {".safetensors", ".json"}


@dataclass(frozen=True)
class Known:
    """A folder as it was last listed: its time stamp (0 if it may still change within it), and its subfolders."""

    changed: int
    folders: tuple[Path, ...]


class UnknownFiles:
    """served: `output` and `temp` -> the folder. Used by the event loop and the worker."""

    def __init__(self, served: Mapping[str, Path], watch: FolderWatch, quarantine: Path) -> None:
        self._served = {kind: folder.resolve() for kind, folder in served.items()}
        self._watch = watch
        self._quarantine = quarantine
        self._known: dict[Path, Known] = {}

    def sweep(self) -> int:
        """Put aside every file in the served folders that no record knows; how many there were.

        A folder to which nothing was added since the last time is not listed again.
        """
        return sum(self._sweep(kind, folder, folder) for kind, folder in self._served.items())

    def refuses(self, path: Path) -> bool:
        """Whether a file that somebody asks for may not be shown."""
        if not os.path.lexists(path):
            return False
        for folder in self._served.values():
            if path.is_relative_to(folder):
                return not _is_recorded(path, whole=True)
        return not self._watch.knows(path)

    def put_aside(self, path: Path) -> None:
        """Move a file of a served folder into the private one."""
        for kind, folder in self._served.items():
            if path.is_relative_to(folder) and not _is_own(path.relative_to(folder)):
                self._move(kind, folder, path)

    def _sweep(self, kind: str, root: Path, folder: Path) -> int:
        try:
            changed = os.stat(folder).st_mtime_ns
            known = self._known.get(folder)
            if known is not None and known.changed == changed:
                return sum(self._sweep(kind, root, inner) for inner in known.folders)
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:  # it is gone, or not ours to read
            self._known.pop(folder, None)
            return 0
        folders = tuple(Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False))
        settled = time.time_ns() - changed > SETTLED * 1e9
        self._known[folder] = Known(changed if settled else 0, folders)
        files = [Path(entry.path) for entry in entries if not entry.is_dir(follow_symlinks=False)]
        unknown = [
            path
            for path in files
            if path.lstat().st_size and not (_is_own(path.relative_to(root)) or _is_recorded(path))
        ]
        for path in unknown:
            self._move(kind, root, path)
        return len(unknown) + sum(self._sweep(kind, root, inner) for inner in folders)

    def _move(self, kind: str, root: Path, path: Path) -> None:
        target = self._quarantine / kind / path.relative_to(root)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            while target.exists():
                target = target.with_name(f"{time.time_ns()}_{path.name}")
            shutil.move(path, target)
        except OSError as error:  # it is not shown all the same
            logging.warning("Safety Steering: %s has no record and cannot be moved: %s", shown(path.name), error)
            return
        logging.warning("Safety Steering: %s has no record. It was moved to quarantine.", shown(path.name))


def _is_own(name: Path) -> bool:
    return name.parts[0] in OWN and name.suffix in OWN_SUFFIXES


def _is_recorded(path: Path, *, whole: bool = False) -> bool:
    """Whether a file has a record, or is one. whole: its bytes must be those that the record names, not its size."""
    file = path.with_name(path.name.removesuffix(SUFFIX)) if path.name.endswith(SUFFIX) else path
    if not is_plain_file(file) or not is_known(file):
        return False
    return not whole or _matches(file, version_of(file), version_of(sidecar_of(file)))


@lru_cache(maxsize=65_536)
def _matches(file: Path, version: Version, record: Version) -> bool:
    """As `evidence.matches`, and read once only for each version of the file and its record."""
    return matches(file)
