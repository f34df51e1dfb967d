"""The audit log's lines, read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safety_steering_pack.guardrail.audit import LOG


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Every record of a folder's log, rotated files first; an incomplete last line is left out."""
    files = [*sorted(folder.glob("audit-*.jsonl")), folder / LOG]
    lines = [line for file in files if file.exists() for line in file.read_bytes().splitlines(keepends=True)]
    return [json.loads(line) for line in lines if line.endswith(b"\n")]
