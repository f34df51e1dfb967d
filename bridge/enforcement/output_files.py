"""The files that a node tells the server about, and the pictures that go into it before it writes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import folder_paths
import torch

from ...guardrail.evidence import sidecar_of

SERVED = ("output", "temp")
CLOCK_TICK = 1.0  # seconds; file systems stamp files more coarsely than the clock


def announced_files(shown: Mapping[str, Any], since: float) -> Iterator[Path]:
    """The files, written after `since` (seconds), that a node's ui names in the folders that the server serves."""
    for entries in shown.values():
        for entry in entries if isinstance(entries, list | tuple) else ():
            path = _path_of(entry) if isinstance(entry, dict) else None
            if path and path.is_file() and path.stat().st_mtime >= since - CLOCK_TICK:
                yield path


def _path_of(entry: Mapping[str, Any]) -> Path | None:
    folder = folder_paths.get_directory_by_type(entry["type"]) if entry.get("type") in SERVED else None
    if folder is None or not entry.get("filename"):
        return None
    path = (Path(folder) / str(entry.get("subfolder") or "") / str(entry["filename"])).resolve()
    return path if path.is_relative_to(Path(folder).resolve()) else None


def carries_pictures(value: Any) -> bool:
    """Whether a node's input is something that was, or can be made, a picture, a video or sound."""
    return (
        isinstance(value, torch.Tensor)
        or hasattr(value, "get_components")
        or (isinstance(value, dict) and bool({"samples", "waveform"} & value.keys()))
    )


def remove(path: Path) -> None:
    """Delete a file that must not be delivered, and its evidence."""
    for file in (path, sidecar_of(path)):
        file.unlink(missing_ok=True)
