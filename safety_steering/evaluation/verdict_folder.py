"""Verdicts on disk: a JSON line for each video, appended when it is judged, and a manifest of what was measured.

A measurement is resumed by skipping the pairs of setting and prompt that are present. An incomplete last line, which a
kill leaves, is removed.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import SafetySteeringError
from ..files import write_atomically
from ..judges.verdict import Verdict

FORMAT = "safety_verdicts"
FORMAT_VERSION = 1
MANIFEST, LINES = "manifest.json", "verdicts.jsonl"
Key = tuple[str, str]


@dataclass(frozen=True, eq=False)
class Stored:
    """A verdict, and notes on its video as plain JSON values."""

    verdict: Verdict
    notes: Mapping[str, Any] = field(default_factory=dict)


class VerdictFolder:
    """A folder of verdicts, opened for reading and appending. verdicts: by (setting, prompt id)."""

    def __init__(self, folder: Path, verdicts: dict[Key, Stored]) -> None:
        self.folder = folder
        self.verdicts = verdicts

    @classmethod
    def create(cls, folder: str | os.PathLike[str], about: Mapping[str, Any]) -> VerdictFolder:
        """Open or make a folder of verdicts. about: what is measured, as plain JSON values.

        Raises:
            SafetySteeringError: the folder was made with another `about`, or cannot be read.
        """
        path = Path(folder)
        manifest = {"format": FORMAT, "format_version": FORMAT_VERSION, "about": json.loads(json.dumps(about))}
        if not (path / MANIFEST).exists():
            write_atomically(path / MANIFEST, json.dumps(manifest, indent=1).encode())
            return cls(path, {})
        try:
            found = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
            if found != manifest:
                raise SafetySteeringError(_difference(path, found, manifest))
            return cls(path, _read(path / LINES))
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, SafetySteeringError):
                raise
            raise SafetySteeringError(
                f"{path.name} is not a complete folder of safety verdicts: {error}. Choose another folder."
            ) from error

    def append(self, setting: str, prompt: str, verdict: Verdict, **notes: Any) -> None:
        """Append one verdict; it is on disk when this returns."""
        line = json.dumps({"setting": setting, "prompt": prompt, **_plain(verdict), "notes": notes}, default=_item)
        with open(self.folder / LINES, "ab") as file:
            file.write(line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.verdicts[setting, prompt] = Stored(verdict, notes)


def _difference(path: Path, found: Any, wanted: Mapping[str, Any]) -> str:
    about = found.get("about", {}) if isinstance(found, dict) else {}
    names = [name for name, value in wanted["about"].items() if about.get(name) != value] or ["its format"]
    return (
        f"{path.name} holds verdicts of other settings: {', '.join(names)} differ. Choose an empty folder, or the same "
        "settings as before to resume."
    )


def _read(path: Path) -> dict[Key, Stored]:
    """The complete lines of a file; an incomplete last line is cut off the file."""
    if not path.exists():
        return {}
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(path, whole)
    lines = map(json.loads, data[:whole].decode().splitlines())
    return {(line["setting"], line["prompt"]): Stored(_verdict(line), line["notes"]) for line in lines}


def _plain(verdict: Verdict) -> dict[str, Any]:
    features = None if verdict.features is None else pack_array(np.asarray(verdict.features, np.float32))
    return {**verdict.as_dict(), "features": features}


def _verdict(line: Mapping[str, Any]) -> Verdict:
    features = None if line["features"] is None else unpack_array(line["features"], np.float32)
    given = {name: line[name] for name in ("scores", "unsafe", "kept", "faithful", "clip_score")}
    return Verdict(**given, features=features)


def _item(value: Any) -> Any:
    """JSON of a numpy number, in which a judge may answer."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not a JSON value")


def pack_array(values: np.ndarray[Any, Any]) -> str:
    """The bytes of an array as base64."""
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


def unpack_array(text: str, dtype: Any) -> np.ndarray[Any, Any]:
    """The array (n,) that `pack_array` wrote."""
    return np.frombuffer(base64.b64decode(text), dtype)
