"""Regular expressions of core's nodes on a guarded server: one that takes too long would hold the whole server.

Python looks for a pattern without letting any other thread run, and some patterns take for ever on a short text. So
each is tried in another process first.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from ...safety_steering.errors import SafetySteeringError

PATIENCE = 10.0  # seconds, of which an honest pattern needs a few hundredths
CHILD = "import json, re, sys; name, *rest = json.load(sys.stdin); found = getattr(re, name)(*rest); list(found or ())"
REPEATS = re.compile(r"[*+{]")


class SlowPattern(SafetySteeringError):
    """A pattern was not done with a text in time."""


class PatientPatterns:
    """Python's `re`, whose functions refuse what takes too long."""

    def __getattr__(self, name: str) -> Any:
        return getattr(re, name)

    def search(self, pattern: Any, string: str, flags: int = 0) -> Any:
        """As `re.search`. Raises SlowPattern."""
        _try("search", pattern, string, flags)
        return re.search(pattern, string, flags)

    def findall(self, pattern: Any, string: str, flags: int = 0) -> Any:
        """As `re.findall`. Raises SlowPattern."""
        _try("findall", pattern, string, flags)
        return re.findall(pattern, string, flags)

    def finditer(self, pattern: Any, string: str, flags: int = 0) -> Any:
        """As `re.finditer`. Raises SlowPattern."""
        _try("findall", pattern, string, flags)
        return re.finditer(pattern, string, flags)

    def sub(self, pattern: Any, repl: Any, string: str, count: int = 0, flags: int = 0) -> str:
        """As `re.sub`. Raises SlowPattern."""
        _try("findall", pattern, string, flags)
        return re.sub(pattern, repl, string, count=count, flags=flags)


def _try(name: str, pattern: Any, string: Any, flags: int) -> None:
    if not (isinstance(pattern, str) and isinstance(string, str) and REPEATS.search(pattern)):
        return
    command = [sys.executable, "-I", "-S", "-c", CHILD]
    sent = json.dumps([name, pattern, string, int(flags)]).encode()
    try:
        subprocess.run(command, input=sent, capture_output=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired as error:
        raise SlowPattern(
            f"This pattern was not done with the text in {PATIENCE:g} s. Use a plainer pattern, without repeats in "
            "repeats, or a shorter text."
        ) from error


def guard_patterns(core_folders: tuple[Path, ...]) -> None:
    """Give the modules of core's nodes patterns that end."""
    patient = PatientPatterns()
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file and vars(module).get("re") is re and Path(file).resolve().parent in core_folders:
            module.re = patient  # type: ignore[attr-defined]  # it is there
