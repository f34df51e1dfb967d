"""The folders that clients can write into over HTTP. Policy, vectors, keys and audit must not be there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import PolicyError

PRIVATE_PREFIX = "__"  # core's system users: HTTP never reaches their folders in the user directory


@dataclass(frozen=True)
class PublicFolders:
    """folders: input, output and temp. users: the user directory, public except for its folders `__<name>`."""

    folders: tuple[Path, ...] = ()
    users: Path | None = None

    def refuse(self, path: Path, what: str) -> None:
        """Raise PolicyError if `path`, as written or with its links followed, is in a public folder.

        what: the subject of the error's sentence.
        """
        for public in self._around(path):
            raise PolicyError(
                f"{what} lies in the folder '{public.name}', where clients can write over HTTP. Move it out, "
                f"for example into the folder '{PRIVATE_PREFIX}safety_steering' of the user directory."
            )

    def _around(self, path: Path) -> Iterator[Path]:
        """The public folders that contain `path`, compared by the file system and not by spelling."""
        for form in (path.absolute(), path.resolve()):
            for inside, folder in zip([form, *form.parents], form.parents, strict=False):
                if any(_same(folder, public) for public in self.folders):
                    yield folder
                if self.users and _same(folder, self.users) and not inside.name.startswith(PRIVATE_PREFIX):
                    yield folder


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one of them does not exist yet
        return one == other.resolve()
