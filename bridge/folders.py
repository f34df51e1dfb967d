"""Where vectors and prompts are found: in `models/safety_vectors` and `models/safety_prompts`, or bundled here."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import folder_paths

from ..safety_steering.errors import PromptFileError, SafetySteeringError, VectorFileError
from ..safety_steering.prompts.files import SUFFIXES as PROMPT_SUFFIXES
from ..safety_steering.vectors.file import read_label

VECTORS = "safety_vectors"


SUFFIX = ".safetensors"


LONGEST_NAME = 180  # bytes; file systems stop at 255, and a temporary name is longer than the final one


LISTED = 8


PROMPTS = "safety_prompts"


LLMS = "safety_llms"


ALIGNMENTS = "safety_alignments"


JUDGES = "safety_judges"


JUDGE_SUFFIXES = (SUFFIX, ".onnx", ".pth")


_VECTORS_HERE = Path(__file__).resolve().parent.parent / "vectors"


# ComfyUI's name of a folder -> the bundled one, and what its files end in
BUNDLED = {
    VECTORS: (_VECTORS_HERE, (SUFFIX,)),
    PROMPTS: (_VECTORS_HERE / "prompts", PROMPT_SUFFIXES),
}


def register_folders() -> None:
    """Tell ComfyUI about the folders, so that extra_model_paths.yaml and the model library know them too."""
    for name, (bundled, suffixes) in BUNDLED.items():
        folder_paths.add_model_folder_path(name, str(Path(folder_paths.models_dir) / name))
        folder_paths.add_model_folder_path(name, str(bundled))
        folder_paths.folder_names_and_paths[name][1].update(suffixes)
    folder_paths.add_model_folder_path(LLMS, str(Path(folder_paths.models_dir) / LLMS))
    folder_paths.add_model_folder_path(ALIGNMENTS, str(Path(folder_paths.models_dir) / ALIGNMENTS))
    folder_paths.folder_names_and_paths[ALIGNMENTS][1].add(SUFFIX)
    folder_paths.add_model_folder_path(JUDGES, str(Path(folder_paths.models_dir) / JUDGES))
    folder_paths.folder_names_and_paths[JUDGES][1].update(JUDGE_SUFFIXES)


def vector_labels() -> list[str]:
    """One label a vector file: its name and, in brackets, what it fits."""
    names = [name for name in folder_paths.get_filename_list(VECTORS) if name.endswith(SUFFIX)]
    return [f"{name} ({_label(find_vector(name))})" for name in names]


def vector_name(label: str) -> str:
    """The file name in a label. A bare file name is its own label, so that workflows survive a changed label."""
    name, suffix, _ = label.partition(SUFFIX)
    return name + suffix


def find_vector(label: str) -> Path:
    """The path of a vector chosen by label or file name.

    Raises:
        VectorFileError: no such file in the folders of safety vectors (nothing outside of them is ever read).
    """
    name = vector_name(label)
    known = folder_paths.get_filename_list(VECTORS)
    path = folder_paths.get_full_path(VECTORS, name) if name in known else None
    if path is None:
        folder = Path(folder_paths.get_folder_paths(VECTORS)[0])
        raise VectorFileError(
            f"The safety vector '{name}' was not found. Put the file into {folder.parent.name}/{folder.name} and press "
            f"R to refresh, or choose one of: {_some(known)}."
        )
    return Path(path)


def prompt_file_names() -> list[str]:
    """The names of the prompt files."""
    return list(folder_paths.get_filename_list(PROMPTS))


def find_prompts(name: str) -> Path:
    """The path of a prompt file.

    Raises:
        PromptFileError: no such file in the folders of prompts (nothing outside of them is ever read).
    """
    known = prompt_file_names()
    path = folder_paths.get_full_path(PROMPTS, name) if name in known else None
    if path is None:
        raise PromptFileError(
            f"The prompt file '{name}' was not found. Put it into models/{PROMPTS} and press R to refresh, or choose "
            f"one of: {_some(known)}."
        )
    return Path(path)


def _some(names: Sequence[str]) -> str:
    """The first names of a list, and how many more there are: a message is read by people."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more or "none there yet"


def new_vector_path(name: str) -> Path:
    """Where a new vector of this name is to be written, in the user's folder.

    Raises:
        VectorFileError: the name is empty, leads out of the folder, or is none that every file system takes.
    """
    folder = Path(folder_paths.get_folder_paths(VECTORS)[0]).resolve()
    file_name = name.strip().removesuffix(SUFFIX)
    usable = bool(file_name) and file_name.isprintable() and len(file_name.encode()) <= LONGEST_NAME
    path = (folder / f"{file_name}{SUFFIX}").resolve() if usable else None
    if path is None or not path.is_relative_to(folder):
        raise VectorFileError(f"'{name}' is no file name inside the folder {folder.name}. Give a plain name.")
    return path


def _label(path: Path) -> str:
    stat = path.stat()
    return _read_label(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=512)
def _read_label(path: Path, modified: int, size: int) -> str:
    """`read_label`, once for each version of a file; a damaged file is listed as such."""
    try:
        return read_label(path)
    except VectorFileError:
        return "cannot be read"


# --- Where activations are kept: `output/safety_activations/<name>`.


ACTIVATIONS = "safety_activations"


def activations_path(name: str) -> Path:
    """The folder of this name, which need not be there yet; SafetySteeringError as `output_folder`."""
    return output_folder(ACTIVATIONS, name)


def shards_of(name: str) -> list[str]:
    """The shards that a folder holds now, which is what changes when it is filled or deleted."""
    return sorted(path.name for path in activations_path(name).glob("shard-*.safetensors"))


# --- Where alignments are: the user's files in `models/safety_alignments`, and in its `cache` those that were fitted.


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


# --- Judge files: `models/safety_judges`.


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


# --- Folders of results that can be taken up again: `output/<kind>/<name>`.


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
