"""The small world's files: hashes, training states, weights and results, each written whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write(temporary_path)`, flush the result to disk and rename it to `path`."""
    from safety_steering_pack.safety_steering.files import replace_file

    replace_file(path, write)


def file_sha256(path: Path) -> str:
    """Hash of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tensors_sha256(path: Path) -> str:
    """Hash of what follows a safetensors file's header: the numbers, whatever its metadata says of them."""
    with open(path, "rb") as file:
        file.seek(8 + int.from_bytes(file.read(8), "little"))
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Save a training state atomically; by `torch.save`, since it nests and never leaves the machine."""
    import torch

    write_atomically(path, lambda temporary: torch.save(dict(state), temporary))


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The saved training state, or None if there is none yet."""
    import torch

    return torch.load(path, map_location="cpu", weights_only=True) if path.exists() else None


def save_weights(path: Path, weights: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Save tensors as safetensors with metadata, atomically."""
    from safety_steering_pack.safety_steering.files import write_tensors

    write_tensors(path, {name: tensor.detach() for name, tensor in weights.items()}, metadata)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a results file. A row that does not say what measured it gets the file's command and commit: it may
    go into a file of another run."""
    found = json.loads(path.read_text())
    return [{name: found[name] for name in ("command", "commit")} | row for row in found["rows"]]


def save_result(path: Path, command: str, seeds: Sequence[int], rows: Sequence[Mapping[str, Any]]) -> None:
    """Save a results file in the project's one shape: command, commit, seeds, rows."""
    from safety_steering_pack.safety_steering.files import write_result

    write_result(path, command, seeds, rows)
