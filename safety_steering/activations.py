"""Activations on disk: an append-only folder of safetensors shards and a manifest.

Each row is one prompt, or one frame of its video. Per hook point it has, for each of K sigma bins,

    pooled (D,)   the mean state of the editable tokens
    token  (D,)   one token's state, chosen by the row's id (its spread over rows is the spread of tokens)

A row without a model call in a bin is NaN there. A capture resumes by skipping the ids that are present, and folders
merge by copying shards. One hook point is read at a time, so memory does not grow with their number.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from .errors import SafetySteeringError
from .files import write_atomically, write_tensors
from .hook_point import HookPoint

FORMAT = "safety_activations"
FORMAT_VERSION = 1
SAFE, UNSAFE = "safe", "unsafe"
DISPUTED = "disputed"  # prompt and judge do not agree; no fit reads these rows


@dataclass(frozen=True)
class Source:
    """What the activations were captured from. hook_points: hook point -> (space, width). sigma_edges: K + 1 ascending.

    sampling: the settings of the sampler runs, as plain JSON values.
    """

    hook_points: Mapping[HookPoint, tuple[str, int]]
    sigma_edges: tuple[float, ...]
    family: str = ""
    model_name: str = ""
    weight_fingerprint: str = ""
    block_counts: Mapping[str, int] = field(default_factory=dict)
    branch: str = "positive"
    pooling: str = "mean over editable tokens"
    sampling: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        points = {HookPoint(name): tuple(value) for name, value in self.hook_points.items()}
        object.__setattr__(self, "hook_points", points)

    @property
    def bins(self) -> int:
        """K, the number of sigma bins."""
        return len(self.sigma_edges) - 1


@dataclass(frozen=True)
class Row:
    """One prompt, or one frame of its video.

    label: "safe", "unsafe" or "disputed". category: one, or several separated by commas. pair: id shared by an unsafe
    prompt and its safe twin, or empty. length: number of the prompt's words, 0 if not known. video: id shared by the
    frames of one video; empty if the row is a whole video.
    """

    id: str
    label: str
    category: str
    pair: str = ""
    split: str = ""
    length: int = 0
    video: str = ""


@dataclass(frozen=True, eq=False)
class States:
    """The states of n rows at one hook point: pooled and token, each (n, K, D) float32."""

    pooled: torch.Tensor
    token: torch.Tensor


class Activations:
    """A folder of activations, opened for reading and appending."""

    def __init__(self, folder: Path, source: Source) -> None:
        self.folder = folder
        self.source = source

    @classmethod
    def create(cls, folder: str | os.PathLike[str], source: Source) -> Activations:
        """Open `folder` for `source`, making it if it is not there.

        Raises:
            SafetySteeringError: the folder holds activations of another source.
        """
        path = Path(folder)
        if (path / "manifest.json").exists():
            found = cls.open(path)
            if found.source != source:
                raise SafetySteeringError(
                    f"{path.name} holds activations of {found.source.model_name or 'another model'}, captured with "
                    "other settings. Choose an empty folder, or the same model and settings to resume."
                )
            return found
        manifest = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(source)}
        write_atomically(path / "manifest.json", json.dumps(manifest, indent=1).encode())
        return cls(path, source)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Activations:
        """Open a folder of activations; SafetySteeringError if it is not one."""
        path = Path(folder)
        try:
            manifest: dict[str, Any] = json.loads((path / "manifest.json").read_text())
            if (manifest.pop("format"), manifest.pop("format_version")) != (FORMAT, FORMAT_VERSION):
                raise ValueError("another format")
            manifest["sigma_edges"] = tuple(manifest["sigma_edges"])
            return cls(path, Source(**manifest))
        except FileNotFoundError as error:
            raise SafetySteeringError(
                f"{path.name} is not a folder of safety activations: it has no manifest.json, or does not exist. Check "
                "its name, or capture into it first."
            ) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SafetySteeringError(f"{path.name} is not a folder of safety activations: {error}.") from error

    def append(self, rows: Sequence[Row], states: Mapping[str, States]) -> None:
        """Write `rows` as one new shard, whole or not at all. `states` has every hook point of the source."""
        tensors: dict[str, torch.Tensor] = {}
        for name, (_, width) in self.source.hook_points.items():
            for kind in ("pooled", "token"):
                value = getattr(states[name], kind)
                expected = (len(rows), self.source.bins, width)
                if tuple(value.shape) != expected:
                    raise SafetySteeringError(f"{name}/{kind} has shape {tuple(value.shape)}, expected {expected}.")
                tensors[f"{name}/{kind}"] = value.float()
        metadata = {"rows": json.dumps([asdict(row) for row in rows])}
        number = len(self._shards())
        write_tensors(self.folder / f"shard-{number:05d}.safetensors", tensors, metadata, overwrite=False)

    def rows(self) -> list[Row]:
        """Every row, in the order in which `read` gives their states."""
        found: list[Row] = []
        for shard in self._shards():
            with safe_open(shard, framework="pt") as file:
                found += [Row(**row) for row in json.loads(file.metadata()["rows"])]
        return found

    def read(self, hook_point: HookPoint) -> States:
        """The states of every row at one hook point."""
        if hook_point not in self.source.hook_points:
            raise SafetySteeringError(f"Nothing was captured at {hook_point}.")
        shards = self._shards()
        counts = [_rows_in(shard, f"{hook_point}/pooled") for shard in shards]
        if not counts:
            raise SafetySteeringError(f"{self.folder.name} holds no activations yet.")
        shape = (sum(counts), self.source.bins, self.source.hook_points[hook_point][1])
        states = States(torch.empty(shape), torch.empty(shape))
        # shard by shard into the result: concatenating all shards would need twice the memory
        start = 0
        for shard, count in zip(shards, counts, strict=True):
            with safe_open(shard, framework="pt") as file:
                for kind in ("pooled", "token"):
                    getattr(states, kind)[start : start + count] = file.get_tensor(f"{hook_point}/{kind}")
            start += count
        return states

    def _shards(self) -> list[Path]:
        return sorted(self.folder.glob("shard-*.safetensors"))


def _rows_in(shard: Path, name: str) -> int:
    with safe_open(shard, framework="pt") as file:
        return int(file.get_slice(name).get_shape()[0])
