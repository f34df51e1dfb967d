"""Writing a file so that it is either there whole or not at all."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save


def replace_file(path: str | os.PathLike[str], write: Callable[[Path], object], *, overwrite: bool = True) -> Path:
    """Let `write` fill a temporary file in the same folder, fsync it and rename it to `path`; returns the path.

    With `overwrite=False` an existing file is kept and FileExistsError raised. The folder is made if missing.
    """
    path = Path(path)
    if not overwrite and path.exists():
        raise FileExistsError(f"{path.name} exists already. Choose another name, or allow overwriting.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        write(temporary)
        with open(temporary, "r+b") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def write_atomically(path: str | os.PathLike[str], data: bytes, *, overwrite: bool = True) -> Path:
    """Write `data` to `path` with `replace_file`."""
    return replace_file(path, lambda temporary: temporary.write_bytes(data), overwrite=overwrite)


def write_tensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str],
    *,
    overwrite: bool = True,
) -> Path:
    """Write a safetensors file with `write_atomically`; the same content always gives the same bytes."""
    # clones: safetensors refuses tensors that share memory, as two equal statistics may
    own = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    return write_atomically(path, _in_order(save(own, metadata=dict(metadata))), overwrite=overwrite)


def _in_order(data: bytes) -> bytes:
    """A safetensors file with its header's keys sorted: safetensors writes metadata in an order that changes."""
    size = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + size]), sort_keys=True, separators=(",", ":")).encode()
    padded = header + b" " * (-len(header) % 8)  # the numbers stay aligned
    return len(padded).to_bytes(8, "little") + padded + data[8 + size :]
