"""Where vectors and prompts are found: in `models/safety_vectors` and `models/safety_prompts`, or bundled here."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import folder_paths

from ..safety_steering.errors import PromptFileError, VectorFileError
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
