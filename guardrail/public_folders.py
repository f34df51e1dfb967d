"""The folders that clients can write into over HTTP: nothing that decides safety may lie there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import PolicyError

PRIVATE_PREFIX = "__"  # what core calls a system user: the folders of the user directory that HTTP never reaches


@dataclass(frozen=True)
class PublicFolders:
    """folders: input, output, temp and the like. users: the folder of user folders, public but for `__<name>`."""

    folders: tuple[Path, ...] = ()
    users: Path | None = None

    def refuse(self, path: Path, what: str) -> None:
        """Raise PolicyError if `path`, as written or with its links followed, lies in a public folder.

        what: what the file is, as the sentence's subject.
        """
        for public in self._around(path):
            raise PolicyError(
                f"{what} lies in the folder '{public.name}', where clients can write over HTTP. Move it out, "
                f"for example into the folder '{PRIVATE_PREFIX}safety_steering' of the user directory."
            )

    def _around(self, path: Path) -> Iterator[Path]:
        """The public folders that hold `path`; compared as the file system does, whatever the spelling."""
        for place in (path.absolute(), path.resolve()):
            for inside, folder in zip([place, *place.parents], place.parents, strict=False):
                if any(_same(folder, public) for public in self.folders):
                    yield folder
                if self.users and _same(folder, self.users) and not inside.name.startswith(PRIVATE_PREFIX):
                    yield folder


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one of them does not exist yet
        return one == other.resolve()
