"""Activations on disk: an append-only folder of safetensors shards and a manifest.

Each row is one prompt, or one frame of its video. Per hook point it has, for each of K sigma bins,

    pooled (D,)     the mean state of the editable tokens
    token  (D,)     one token's state, chosen by the row's id (its spread over rows is the spread of tokens)
    tokens (T, D)   a few tokens' states, in half precision (bfloat16): the same places for both prompts of a pair

A row without a model call in a bin is NaN there, and so are the places of `tokens` that a short prompt does not fill.
Folders of format version 1 have no `tokens`. A capture resumes by skipping the ids that are present, and folders merge
by copying shards. One hook point is read at a time, so memory does not grow with their number.
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
FORMAT_VERSION = 2
READABLE = (1, 2)
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
    """The states of n rows at one hook point: pooled and token, each (n, K, D) float32.

    tokens: (n, K, T, D) bfloat16, NaN where a row has fewer than T; None if they were not captured, or not read.
    """

    pooled: torch.Tensor
    token: torch.Tensor
    tokens: torch.Tensor | None = None


def joined(parts: Sequence[States]) -> States:
    """The rows of several states one after another; `tokens` as long as the longest, None if one has none."""
    pooled, token = (torch.cat([getattr(part, kind) for part in parts]) for kind in ("pooled", "token"))
    tokens = [part.tokens for part in parts if part.tokens is not None]
    if len(tokens) < len(parts):
        return States(pooled, token)
    most = max(one.shape[2] for one in tokens)
    padded = [torch.nn.functional.pad(one, (0, 0, 0, most - one.shape[2]), value=torch.nan) for one in tokens]
    return States(pooled, token, torch.cat(padded))


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
            if manifest.pop("format") != FORMAT or manifest.pop("format_version") not in READABLE:
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
            tokens = states[name].tokens
            if tokens is not None:
                if tokens.ndim != 4 or (*tokens.shape[:2], tokens.shape[3]) != expected:
                    shape = (*expected[:2], "T", expected[2])
                    raise SafetySteeringError(f"{name}/tokens has shape {tuple(tokens.shape)}, expected {shape}.")
                tensors[f"{name}/tokens"] = tokens.to(torch.bfloat16)
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

    @property
    def bytes_on_disk(self) -> int:
        """The size of every shard together."""
        return sum(shard.stat().st_size for shard in self._shards())

    def read(self, hook_point: HookPoint, *, tokens: bool = False) -> States:
        """The states of every row at one hook point; `tokens` is None unless they are asked for and all rows have some.

        Raises:
            SafetySteeringError: nothing was captured there.
        """
        if hook_point not in self.source.hook_points:
            raise SafetySteeringError(f"Nothing was captured at {hook_point}.")
        shards = self._shards()
        counts = [_shape_in(shard, f"{hook_point}/pooled")[0] for shard in shards]
        if not counts:
            raise SafetySteeringError(f"{self.folder.name} holds no activations yet.")
        shape = (sum(counts), self.source.bins, self.source.hook_points[hook_point][1])
        most = [_shape_in(shard, f"{hook_point}/tokens")[2:3] for shard in shards] if tokens else [()]
        kept = None
        if all(most):
            of_tokens = (*shape[:2], max(most)[0], shape[2])
            kept = torch.full(of_tokens, torch.nan, dtype=torch.bfloat16)
        states = States(torch.empty(shape), torch.empty(shape), kept)
        # shard by shard into the result: concatenating all shards would need twice the memory
        start = 0
        for shard, count in zip(shards, counts, strict=True):
            with safe_open(shard, framework="pt") as file:
                for kind in ("pooled", "token"):
                    getattr(states, kind)[start : start + count] = file.get_tensor(f"{hook_point}/{kind}")
                if kept is not None:
                    found = file.get_tensor(f"{hook_point}/tokens")
                    kept[start : start + count, :, : found.shape[2]] = found
            start += count
        return states

    def _shards(self) -> list[Path]:
        return sorted(self.folder.glob("shard-*.safetensors"))


def _shape_in(shard: Path, name: str) -> tuple[int, ...]:
    """The shape of a tensor in a shard; empty if it is not there."""
    with safe_open(shard, framework="pt") as file:
        return tuple(file.get_slice(name).get_shape()) if name in set(file.keys()) else ()
