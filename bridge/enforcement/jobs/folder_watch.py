"""The folders that clients reach, listed before and after a pack's node: what has it written past its private ones?

Output and temp are served, and so are input and the users' folders, into which clients write over HTTP meanwhile. What
a request has written is known by its path and version, so it is never taken for the node's.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ....guardrail.public_folders import PRIVATE_PREFIX

Version = tuple[int, ...]
PATIENCE = 10.0  # seconds that a listing waits for requests that are writing


class ClientWrites:
    """The files that requests have written: path -> version. Used by the event loop and the worker."""

    def __init__(self) -> None:
        self._known: dict[Path, Version] = {}
        self._open = 0
        self._changed = threading.Condition()

    @contextmanager
    def writing(self) -> Iterator[list[Path]]:
        """While a request writes files; it puts their paths into the list."""
        paths: list[Path] = []
        with self._changed:
            self._open += 1
        try:
            yield paths
        finally:
            with self._changed:
                self._open -= 1
                self._known |= {path.resolve(): version_of(path) for path in paths}
                self._changed.notify_all()

    def wrote(self, path: Path) -> bool:
        """Whether a request has written a file as it is now."""
        return path in self._known and self._known[path] == version_of(path)

    @contextmanager
    def still(self) -> Iterator[Mapping[Path, Version]]:
        """While no request writes: path -> version of what requests have written."""
        with self._changed:
            self._changed.wait_for(lambda: self._open == 0, PATIENCE)
            yield self._known


@dataclass(frozen=True)
class Listing:
    """served: files of the output and temp folders; clients: those of the input folder and the users' folders."""

    served: Mapping[Path, Version]
    clients: Mapping[Path, Version]


@dataclass(frozen=True)
class Changes:
    """new: files in the served folders; changed: of all, those that are another or gone; strays: new elsewhere."""

    new: tuple[Path, ...] = ()
    changed: tuple[Path, ...] = ()
    strays: tuple[Path, ...] = ()


class FolderWatch:
    """Lists the folders. served: output and temp; input_folder, users: where clients write, which `writes` knows of."""

    def __init__(self, served: tuple[Path, ...], input_folder: Path, users: Path) -> None:
        self.writes = ClientWrites()
        self._served = tuple(folder.resolve() for folder in served)
        self._input = input_folder.resolve()
        self._users = users.resolve()
        self._at_start = self._list().clients

    def knows(self, path: Path) -> bool:
        """Whether a file of the input folder or a user's folder was there at the start, itself or a link that leads to
        it, or was written by a request; True for files elsewhere."""
        if not any(path.is_relative_to(folder) for folder in (self._input, self._users)):
            return True
        at_start = (self._at_start.get(part) == version_of(part) for part in (path, *path.parents))
        return any(at_start) or self.writes.wrote(path)

    def listing(self) -> Listing:
        """Every file that a client could read, with what changes when it does."""
        with self.writes.still():
            return self._list()

    def since(self, before: Listing) -> Changes:
        """What is different now, without what requests have written meanwhile."""
        with self.writes.still() as written:
            now = self._list()
            everything = {**now.served, **now.clients}

            def unexplained(path: Path) -> bool:
                return written.get(path) != everything.get(path, ())

            changed = [path for path, was in {**before.served, **before.clients}.items() if everything.get(path) != was]
            strays = [path for path in now.clients if path not in before.clients]
            return Changes(
                tuple(path for path in now.served if path not in before.served),
                tuple(filter(unexplained, changed)),
                tuple(filter(unexplained, strays)),
            )

    def _list(self) -> Listing:
        inside = [self._input, *(user for user in _folders_of(self._users) if not user.name.startswith(PRIVATE_PREFIX))]
        return Listing(_versions(self._served), _versions(inside))


def files_of(folder: Path) -> Iterator[Path]:
    """Every file and every link in a folder and its subfolders."""
    for inside, folders, names in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(inside, name))]
        yield from (Path(inside) / name for name in (*names, *links))


def is_plain_file(path: Path) -> bool:
    """Whether a path is a file, and no link, folder or device."""
    return path.is_file() and not path.is_symlink()


def version_of(path: Path) -> Version:
    """What changes when a file is written or replaced; empty if there is none."""
    try:
        stat = path.lstat()
    except OSError:
        return ()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _versions(folders: Iterable[Path]) -> dict[Path, Version]:
    return {path: version_of(path) for folder in folders for path in files_of(folder)}


def _folders_of(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
