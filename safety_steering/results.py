"""Results as files: every table that is measured is also JSON, `{"command", "commit", "seeds", "rows"}`."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .files import write_atomically


def write_result(
    path: str | os.PathLike[str], command: str, seeds: Sequence[int], rows: Sequence[Mapping[str, Any]], **more: Any
) -> Path:
    """Write rows with the command that made them, its seeds and this pack's commit; returns the path.

    more: further entries beside the rows, such as which machine it was.
    """
    result = {"command": command, "commit": commit(), "seeds": list(seeds), **more, "rows": [dict(row) for row in rows]}
    return write_atomically(path, (json.dumps(result, indent=1) + "\n").encode())


def commit() -> str:
    """The commit of this pack that is checked out, or "unknown" where it is no git checkout."""
    folder = Path(__file__).resolve().parent
    try:
        asked = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return asked.stdout.strip() if asked.returncode == 0 else "unknown"
