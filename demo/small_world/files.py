"""Writing files so that a kill at any moment leaves either the old file or the new one, never half of one."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Call `write(temporary_path)`, flush the result to disk and rename it to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().contiguous() for name, tensor in weights.items()}
    write_atomically(path, lambda temporary: save_file(tensors, temporary, dict(metadata)))


def commit() -> str:
    """The checked-out commit, or "unknown" outside a git checkout."""
    folder = Path(__file__).parent
    asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True)
    return asked.stdout.strip() if asked.returncode == 0 else "unknown"


def save_result(path: Path, command: str, seeds: Sequence[int], rows: Sequence[Mapping[str, Any]]) -> None:
    """Save a results file in the project's one shape: command, commit, seeds, rows."""
    result = {"command": command, "commit": commit(), "seeds": list(seeds), "rows": [dict(row) for row in rows]}
    write_atomically(path, lambda temporary: temporary.write_text(json.dumps(result, indent=1) + "\n"))
