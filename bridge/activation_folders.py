"""Where activations are kept: `output/safety_activations/<name>`."""

from __future__ import annotations

from pathlib import Path

from .output_folders import output_folder

ACTIVATIONS = "safety_activations"


def activations_path(name: str) -> Path:
    """The folder of this name, which need not be there yet; SafetySteeringError as `output_folder`."""
    return output_folder(ACTIVATIONS, name)


def shards_of(name: str) -> list[str]:
    """The shards that a folder holds now, which is what changes when it is filled or deleted."""
    return sorted(path.name for path in activations_path(name).glob("shard-*.safetensors"))
