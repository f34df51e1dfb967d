"""Writing a file so that it is either there whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save


def write_atomically(path: str | os.PathLike[str], data: bytes, *, overwrite: bool = True) -> Path:
    """Write `data` to `path` through a temporary file in the same folder, fsync and rename; returns the path.

    With `overwrite=False` an existing file is kept and FileExistsError raised. The folder is made if missing.
    """
    path = Path(path)
    if not overwrite and path.exists():
        raise FileExistsError(f"{path.name} exists already. Choose another name, or allow overwriting.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def write_tensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str],
    *,
    overwrite: bool = True,
) -> Path:
    """Write a safetensors file with `write_atomically`."""
    # clones: safetensors refuses tensors that share memory, as two equal statistics may
    own = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    return write_atomically(path, save(own, metadata=dict(metadata)), overwrite=overwrite)
