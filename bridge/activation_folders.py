"""Where activations are kept: `output/safety_activations/<name>`."""

from __future__ import annotations

from pathlib import Path

import folder_paths

from ..safety_steering.errors import SafetySteeringError

ACTIVATIONS = "safety_activations"
LONGEST_NAME = 180  # bytes


def activations_path(name: str) -> Path:
    """The folder of this name, which need not be there yet.

    Raises:
        SafetySteeringError: the name is empty, leads out of the output directory, or is none that file systems take.
    """
    root = (Path(folder_paths.get_output_directory()) / ACTIVATIONS).resolve()
    usable = bool(name.strip()) and name.isprintable() and len(name.encode()) <= LONGEST_NAME
    path = (root / name.strip()).resolve() if usable else root
    if path == root or not path.is_relative_to(root):
        raise SafetySteeringError(f"'{name}' is no folder name inside output/{ACTIVATIONS}. Give a plain name.")
    return path


def shards_of(name: str) -> list[str]:
    """The shards that a folder holds now, which is what changes when it is filled or deleted."""
    return sorted(path.name for path in activations_path(name).glob("shard-*.safetensors"))
