"""Where nodes write on a guarded server: private folders of their own, from which only signed files are moved.

A node asks core for the output or temp folder and gets a private one, so what it writes is served by nobody until it
was judged and signed, also if the server is killed in between. What a node writes past that is found by listing.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....guardrail.evidence import SUFFIX, sidecar_of
from ..choke_points import Wrap
from .folder_watch import files_of

SERVED = ("output", "temp")
_writing: ContextVar[Path | None] = ContextVar("safety_steering_writing", default=None)


@dataclass(frozen=True)
class Written:
    """A file that a node wrote. kind: of the folder it is meant for, `output` or `temp`; name: its path in that.

    served: it lies in the served folder already, where it should not have been written.
    """

    path: Path
    kind: str
    name: Path
    served: bool = False


class Staging:
    """The private folders, one for each `place_of` a node; a node keeps the folder's path, so it never changes.

    root: a private folder that HTTP does not reach.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._real: dict[str, Callable[[], str]] = {}

    def wraps(self) -> dict[str, Wrap]:
        """Choke point -> what is put around its function."""
        return {
            "output folder": self._redirected("output"),
            "temp folder": self._redirected("temp"),
            "file names": self._around_annotated,
            "counters": self._around_save_path,
        }

    def folder(self, kind: str) -> Path:
        """The served folder of a kind."""
        return Path(self._real[kind]()).resolve()

    @contextmanager
    def writing(self, place: str) -> Iterator[None]:
        """What a node does inside goes into its private folders."""
        token = _writing.set(self._folder_of(place))
        try:
            yield
        finally:
            _writing.reset(token)

    def begin(self, place: str) -> None:
        """Empty a node's folders of what a former run has left."""
        shutil.rmtree(self._folder_of(place) / "output", ignore_errors=True)
        for kind in SERVED:
            (self._folder_of(place) / kind).mkdir(parents=True, exist_ok=True)

    def written(self, place: str) -> list[Written]:
        """Every file in a node's private output folder, and in its private temp folder."""
        found = []
        for kind in SERVED:
            folder = self._folder_of(place) / kind
            found += [
                Written(path, kind, path.relative_to(folder))
                for path in sorted(files_of(folder))
                if not _is_evidence(path)
            ]
        return found

    def publish(self, file: Written) -> Path:
        """Move a file, and its record before it, into the served folder, over no other file; returns where it is."""
        target = self.folder(file.kind) / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if sidecar_of(file.path).exists():
            os.replace(_beside(sidecar_of(file.path), sidecar_of(target)), sidecar_of(target))
        beside = _beside(file.path, target)
        try:
            os.link(beside, target)  # fails if there is a file by now
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            os.rename(beside, target)
        finally:
            beside.unlink(missing_ok=True)
        file.path.unlink(missing_ok=True)
        return target

    def free_name(self, file: Written) -> Written:
        """The file under a name that is not taken in the served folder: what another job has made stays."""
        name, number = file.name, 1
        while (target := self.folder(file.kind) / name).exists() or sidecar_of(target).exists():
            name = file.name.with_name(f"{file.name.stem}_{number}{file.name.suffix}")
            number += 1
        if name == file.name:
            return file
        path = file.path.rename(file.path.with_name(name.name))
        return Written(path, file.kind, name)

    def told(self, value: Any, moved: Mapping[Path, tuple[str, Path]]) -> Any:
        """What a node tells of its files, with the paths where they are now. moved: private path -> kind, new name."""
        if isinstance(value, str):
            for path, (kind, name) in moved.items():
                value = value.replace(str(path), str(self.folder(kind) / name))
            return value
        if isinstance(value, Mapping):
            entry = {key: self.told(inner, moved) for key, inner in value.items()}
            if "filename" in value and "type" in value:
                named = Path(str(value.get("subfolder") or "")) / str(value["filename"])
                for path, (kind, name) in moved.items():
                    if kind == value["type"] and _ends_with(path, named):
                        entry |= {"filename": name.name, "subfolder": _subfolder(name)}
            return entry
        return type(value)(self.told(inner, moved) for inner in value) if type(value) in (list, tuple) else value

    def clear(self) -> None:
        """Delete everything that was not published; when the server starts."""
        shutil.rmtree(self._root, ignore_errors=True)

    def _folder_of(self, place: str) -> Path:
        return self._root / hashlib.sha256(place.encode()).hexdigest()[:16]

    def _redirected(self, kind: str) -> Wrap:
        def wrap(original: Callable[[], str]) -> Callable[[], str]:
            self._real[kind] = original

            def directory() -> str:
                private = _writing.get()
                return original() if private is None else str(private / kind)

            return directory

        return wrap

    def _around_annotated(self, original: Callable[[str], Any]) -> Callable[[str], Any]:
        def annotated_filepath(name: str) -> Any:
            """A node that reads an output reads the served one."""
            token = _writing.set(None)
            try:
                return original(name)
            finally:
                _writing.reset(token)

        return annotated_filepath

    def _around_save_path(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def get_save_image_path(
            filename_prefix: str, output_dir: str, image_width: int = 0, image_height: int = 0
        ) -> Any:
            folder, name, counter, subfolder, prefix = original(filename_prefix, output_dir, image_width, image_height)
            private = Path(output_dir)
            if private.is_relative_to(self._root) and private.name in SERVED:
                served = self._real[private.name]()
                taken = original(filename_prefix, served, image_width, image_height)
                counter = max(counter, taken[2])
            return folder, name, counter, subfolder, prefix

        return get_save_image_path


def place_of(dynprompt: Any, node_id: str) -> str:
    """The name of a node's place: by its class too, so that what a thread of a pack writes long after its job has ended
    lies in no folder of another node with the same id."""
    return f"{node_id} {dynprompt.get_node(node_id)['class_type']}"


def _is_evidence(path: Path) -> bool:
    """Whether a file is the record of one beside it."""
    return path.name.endswith(SUFFIX) and path.with_name(path.name.removesuffix(SUFFIX)).exists()


def _beside_name(target: Path) -> Path:
    return target.with_name(f".{hashlib.sha256(target.name.encode()).hexdigest()[:16]}.new")


def _beside(source: Path, target: Path) -> Path:
    """A link or copy of a file in the target's folder, under a hidden name: folders may be on different disks."""
    beside = _beside_name(target)
    beside.unlink(missing_ok=True)
    try:
        os.link(source, beside)
    except OSError:
        shutil.copy2(source, beside)
    return beside


def _ends_with(path: Path, named: Path) -> bool:
    return path.parts[-len(named.parts) :] == named.parts


def _subfolder(name: Path) -> str:
    return "" if name.parent == Path() else name.parent.as_posix()
