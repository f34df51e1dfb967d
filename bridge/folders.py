"""Files of this pack, found by the names that ComfyUI's pickers show; folders of results; caches by file version."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, wraps
from pathlib import Path
from typing import TypeVar

import folder_paths

from ..safety_steering.errors import PromptFileError, SafetySteeringError, VectorFileError
from ..safety_steering.files import file_sha256
from ..safety_steering.prompts.files import SUFFIXES as PROMPT_SUFFIXES
from ..safety_steering.prompts.files import dataset_folders
from ..safety_steering.vectors.file import read_label

SUFFIX = ".safetensors"
LONGEST_NAME = 180  # bytes; file systems stop at 255, and a temporary name is longer than the final one
LISTED = 8  # names in an error message
DEEPEST = 3  # folders below a search path in which language models are looked for
_BUNDLED = Path(__file__).resolve().parent.parent / "vectors"

Result = TypeVar("Result")


@dataclass(frozen=True)
class Kind:
    """A kind of file that users choose by name.

    folder: below `models`, and its key in ComfyUI's folder_paths. noun, wanted, error: for the message about a missing
    file. bundled: the folder of those that come with the pack. hidden: a subfolder that is not offered.
    """

    folder: str
    noun: str
    suffixes: tuple[str, ...]
    error: type[SafetySteeringError] = SafetySteeringError
    wanted: str = "it"
    bundled: Path | None = None
    hidden: str = ""

    @property
    def roots(self) -> list[Path]:
        """The folders that are searched, the user's first."""
        return [Path(folder) for folder in folder_paths.get_folder_paths(self.folder)]


VECTORS = Kind("safety_vectors", "safety vector", (SUFFIX,), VectorFileError, bundled=_BUNDLED)
PROMPTS = Kind("safety_prompts", "prompt file", PROMPT_SUFFIXES, PromptFileError, bundled=_BUNDLED / "prompts")
ALIGNMENTS = Kind("safety_alignments", "alignment", (SUFFIX,), VectorFileError, hidden="cache")
JUDGES = Kind("safety_judges", "judge file", (SUFFIX, ".onnx", ".pth"))
LLMS = Kind(
    "safety_llms",
    "language model",
    (),
    wanted="a Hugging Face folder (config.json, tokenizer, safetensors) or a .gguf file",
)

# folders below ComfyUI's output folder
ACTIVATIONS, CALIBRATIONS = "safety_activations", "safety_calibrations"


def register_folders() -> None:
    """Tell ComfyUI about the folders, so that extra_model_paths.yaml and the model library know them too."""
    for kind in (VECTORS, PROMPTS, ALIGNMENTS, JUDGES, LLMS):
        for folder in filter(None, (Path(folder_paths.models_dir) / kind.folder, kind.bundled)):
            folder_paths.add_model_folder_path(kind.folder, str(folder))
        # core knows only the last suffix of a name, as in set.jsonl.gz
        folder_paths.folder_names_and_paths[kind.folder][1].update(
            Path(suffix).suffix or suffix for suffix in kind.suffixes
        )


def names(kind: Kind, suffix: str = "") -> list[str]:
    """The names of a kind's files and of datasets' folders, as pickers list them. suffix: only those that end in it."""
    if kind is LLMS:
        return sorted({name for root in kind.roots for name in _llms_in(root)})
    endings = (suffix,) if suffix else kind.suffixes
    files = [
        name
        for name in folder_paths.get_filename_list(kind.folder)
        if name.casefold().endswith(endings) and not (kind.hidden and Path(name).parts[0] == kind.hidden)
    ]
    return files + (dataset_folders(files) if kind is PROMPTS else [])


def find(kind: Kind, name: str) -> Path:
    """The path of a file that was chosen by name; of a vector by its label too.

    Raises:
        SafetySteeringError: of the kind's class. The kind's folders do not hold such a file; nothing outside of them
            is ever read.
    """
    if kind is VECTORS:
        name = vector_name(name)
    known = names(kind)
    found = [path for root in kind.roots if name in known and os.path.exists(path := root / name)]
    if found:
        return found[0]
    raise kind.error(
        f"The {kind.noun} '{name}' was not found. Put {kind.wanted} into models/{kind.folder} and press R to refresh, "
        f"or choose one of: {_some(known)}."
    )


def new_path(kind: Kind, name: str) -> Path:
    """The path of a file of this name that is to be written: in the first of the user's folders that can be written.

    Raises:
        SafetySteeringError: of the kind's class. The name is empty, leads out of the folder, or is not valid on every
            file system; or no folder can be written.
    """
    roots = [root.resolve() for root in kind.roots if root != kind.bundled]
    path = _inside(roots[0], name.strip().removesuffix(SUFFIX), SUFFIX)
    if path is None or (kind.hidden and path.is_relative_to(roots[0] / kind.hidden)):
        raise kind.error(f"'{name}' is not a valid file name in the folder {kind.folder}. Give a plain name.")
    root = next(filter(_is_writable, roots), None)
    if root is None:
        raise kind.error(
            f"No folder of {kind.folder} can be written: {', '.join(map(str, roots))}. Free or unlock one, or add one "
            "in extra_model_paths.yaml."
        )
    return root / path.relative_to(roots[0])


def output_folder(kind: str, name: str) -> Path:
    """The folder `output/<kind>/<name>`, which need not exist yet.

    Raises:
        SafetySteeringError: the name is empty, leads out of the folder, or is not valid on every file system.
    """
    path = _inside((Path(folder_paths.get_output_directory()) / kind).resolve(), name.strip())
    if path is None:
        raise SafetySteeringError(f"'{name}' is not a valid folder name in output/{kind}. Give a plain name.")
    return path


def activations_path(name: str) -> Path:
    """The folder of activations of this name; as `output_folder`."""
    return output_folder(ACTIVATIONS, name)


def shards_of(name: str) -> list[str]:
    """The shards in a folder of activations: changes when it is filled or deleted."""
    return sorted(path.name for path in activations_path(name).glob("shard-*.safetensors"))


def size_of(path: Path) -> int:
    """A file's size in bytes, 0 if it is missing: changes when it is written or deleted."""
    return path.stat().st_size if path.exists() else 0


def file_version(path: Path) -> tuple[int, ...]:
    """Times, size and inode of a file: changes when it is written or replaced."""
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino


def cached_by_file_version(maxsize: int) -> Callable[[Callable[[Path], Result]], Callable[[Path], Result]]:
    """A decorator: keeps a function's last `maxsize` results, each until its file changes."""

    def decorate(function: Callable[[Path], Result]) -> Callable[[Path], Result]:
        @lru_cache(maxsize)
        def of_version(path: Path, *version: int) -> Result:
            return function(path)

        return wraps(function)(lambda path: of_version(path, *file_version(path)))

    return decorate


sha256_of = cached_by_file_version(1024)(file_sha256)


def vector_labels() -> list[str]:
    """One label a vector file: its name and, in brackets, what it fits."""
    return [f"{name} ({_label_of(name)})" for name in names(VECTORS)]


def vector_name(label: str) -> str:
    """The file name in a label. A file name is its own label, so that workflows survive a changed label."""
    named = re.match(rf".*?{re.escape(SUFFIX)}", label, re.IGNORECASE | re.DOTALL)
    return named[0] if named else label


def _label_of(name: str) -> str:
    try:
        return _label(find(VECTORS, name))
    except (VectorFileError, OSError):  # damaged, a broken link, of another user, or gone since it was listed
        return "cannot be read"


_label = cached_by_file_version(512)(read_label)


def _is_writable(folder: Path) -> bool:
    """Whether files can be written in a folder, which is made if it is missing."""
    probe = folder / f".{uuid.uuid4().hex}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"-")
        probe.unlink()
    except OSError:
        return False
    return True


def _inside(root: Path, name: str, suffix: str = "") -> Path | None:
    """`root / name` with a suffix; None for a name that is empty, leads out of `root`, or is not valid everywhere."""
    if not name or not name.isprintable() or len(name.encode(errors="replace")) > LONGEST_NAME:
        return None
    path = (root / f"{name}{suffix}").resolve()
    return path if path != root and path.is_relative_to(root) else None


def _llms_in(root: Path) -> Iterator[str]:
    """Hugging Face folders and GGUF files, by their paths below `root`."""
    for folder, below, files in os.walk(root, followlinks=True):
        here = Path(folder).relative_to(root)
        if len(here.parts) >= DEEPEST:
            below.clear()
        if "config.json" in files and here.parts:
            yield here.as_posix()
            below.clear()
        yield from ((here / file).as_posix() for file in files if file.lower().endswith(".gguf"))


def _some(known: Sequence[str]) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(known) - LISTED} more" if len(known) > LISTED else ""
    return ", ".join(known[:LISTED]) + more or "none there yet"
