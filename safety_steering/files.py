"""Reading files whose content is bounded first, and writing files whole or not at all."""

from __future__ import annotations

import codecs
import hashlib
import json
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save

from .errors import SafetySteeringError, VectorFileError, shortened

# Limits on what a file can make the loader allocate, checked before parsing: `[]` takes 2 bytes in JSON, 56 in Python.
MAX_HEADER_BYTES = 2 * 1024 * 1024
MAX_JSON_ITEMS = 50_000
MAX_JSON_DEPTH = 32
MAX_COMPLAINT = 500
# the longer marks first: UTF-32's begins with UTF-16's
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16", codecs.BOM_UTF8: "utf-8-sig",
}  # fmt: skip


@contextmanager
def one_sentence(path: Path) -> Iterator[None]:
    """Turn any error of the block into a short VectorFileError that starts with the file's name."""
    try:
        yield
    except FileNotFoundError as error:
        raise VectorFileError(f"{path.name}: the file does not exist. Check its name and its folder.") from error
    except (SafetensorError, OSError) as error:
        complaint = f"not a readable safetensors file: {error}. Download or save it again."
        raise VectorFileError(f"{path.name}: {shortened(complaint, MAX_COMPLAINT)}") from error
    except SafetySteeringError as error:
        raise VectorFileError(f"{path.name}: {shortened(str(error), MAX_COMPLAINT)}") from error


def file_sha256(path: str | os.PathLike[str]) -> str:
    """The sha256 of a file's bytes, as a host's policy pins it."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def unicode_encoding(content: bytes) -> str:
    """A text's encoding: by its byte order mark, or UTF-16 by its zero bytes, else utf-8; editors write all of them."""
    encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf-8")
    if encoding == "utf-8" and b"\0" in content[:2]:  # each Latin letter of UTF-16 has a zero byte
        encoding = "utf-16-be" if content[:1] == b"\0" else "utf-16-le"
    return encoding


def check_header_size(path: Path) -> None:
    """Raise VectorFileError unless the header length that the file declares fits the file and MAX_HEADER_BYTES."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if size < 10 or not 2 <= header <= min(size - 8, MAX_HEADER_BYTES):
        raise VectorFileError(
            f"not a whole safetensors file: its header claims {header} bytes of {size}. Download or save it again."
        )


def read_json(metadata: Mapping[str, str], key: str, kind: type, default: Any = None) -> Any:
    """The JSON value under `key`, of type `kind`; `default` if the key is missing.

    Raises:
        VectorFileError: it is missing, too large, nested too deeply, or of another type.
    """
    if key not in metadata and default is not None:
        return default
    text = metadata.get(key, "")
    if sum(map(text.count, "[{,")) > MAX_JSON_ITEMS:
        raise VectorFileError(f"the metadata '{key}' holds more than {MAX_JSON_ITEMS} items.")
    try:
        value = json.loads(text)
        _check_plain(value, MAX_JSON_DEPTH)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, kind):
        raise VectorFileError(f"the metadata '{key}' does not read as a JSON {kind.__name__}.")
    return value


def _check_plain(value: Any, depth: int) -> None:
    """Raise ValueError for JSON nested deeper than `depth`, or with a lone surrogate, which UTF-8 cannot hold."""
    if depth < 0:
        raise ValueError("nested too deeply")
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, dict):
        _check_plain([*value, *value.values()], depth)
    elif isinstance(value, list):
        for item in value:
            _check_plain(item, depth - 1)


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


def write_result(
    path: str | os.PathLike[str], command: str, seeds: Sequence[int], rows: Sequence[Mapping[str, Any]], **more: Any
) -> Path:
    """Write a measured table as JSON, `{"command", "commit", "seeds", "rows"}`; returns the path.

    more: further entries beside the rows, such as the machine.
    """
    result = {"command": command, "commit": commit(), "seeds": list(seeds), **more, "rows": [dict(row) for row in rows]}
    return write_atomically(path, (json.dumps(result, indent=1) + "\n").encode())


def commit() -> str:
    """The checked-out commit of this pack, or "unknown" outside of a git checkout."""
    folder = Path(__file__).resolve().parent
    if not (folder.parent / ".git").exists():  # another repository may lie around an installed copy
        return "unknown"
    try:
        asked = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return asked.stdout.strip() if asked.returncode == 0 else "unknown"
