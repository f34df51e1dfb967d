"""The audit log: one JSON line for each job, in a folder that one server uses.

`audit.jsonl` grows; when it is full it is renamed to `audit-<time>.jsonl`. A line is one write to a file opened for
appending, then fsync. If the process is killed during the write, part of a line can remain at the end of the file; the
next start moves it to `torn-<hash>.txt`, so that every line of the log is a complete record.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

from ..safety_steering.files import write_atomically
from .errors import AuditError
from .job_record import JobRecord
from .policy_settings import AuditSettings

try:
    import fcntl
except ModuleNotFoundError:  # Windows: there the operator must give each server its own folder
    fcntl = None  # type: ignore[assignment]  # a module or None

LOG = "audit.jsonl"
LOCK = "audit.lock"
MEGABYTE = 1024 * 1024


class AuditLog:
    """The log in one folder, for any number of threads. `close` releases the folder.

    Raises:
        AuditError: on construction, if the folder cannot be written or another server uses it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._held = _hold(folder / LOCK)
            _set_torn_line_aside(folder / LOG)
        except OSError as error:
            raise AuditError(f"The audit folder '{folder.name}' cannot be written: {error.strerror}.") from error

    @property
    def path(self) -> Path:
        """The file that is appended to."""
        return self.folder / LOG

    def append(self, record: JobRecord, settings: AuditSettings) -> None:
        """Write one line and fsync it.

        Raises:
            AuditError: it could not be written. No part of it is in the log.
        """
        with self._lock:
            try:
                line = json.dumps(asdict(record), separators=(",", ":"), allow_nan=False).encode() + b"\n"
                if self._size() and self._size() + len(line) > settings.rotate_megabytes * MEGABYTE:
                    self._rotate(settings.keep_files)
                _append(self.path, line)
            except (OSError, TypeError, ValueError) as error:
                raise AuditError(f"The job cannot be written to the audit log: {error}.") from error

    def close(self) -> None:
        """Release the lock, so that another AuditLog can use the folder."""
        os.close(self._held)

    def _size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def _rotate(self, keep_files: int) -> None:
        stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")  # names sort by age
        os.rename(self.path, self.folder / f"audit-{stamp}.jsonl")
        if keep_files:
            for old in sorted(self.folder.glob("audit-*.jsonl"))[:-keep_files]:
                old.unlink()
        _sync_folder(self.folder)


def _append(path: Path, line: bytes) -> None:
    new = not path.exists()
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
    try:
        before = os.fstat(descriptor).st_size
        try:
            written = os.write(descriptor, line)
            if written != len(line):
                raise OSError(None, "the disk is full")
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, before)
            raise
    finally:
        os.close(descriptor)
    if new:
        _sync_folder(path.parent)


def _set_torn_line_aside(path: Path) -> None:
    """Move an incomplete last line into its own file."""
    if not path.exists():
        return
    log = path.read_bytes()
    whole = log.rfind(b"\n") + 1
    if torn := log[whole:]:
        write_atomically(path.with_name(f"torn-{hashlib.sha256(torn).hexdigest()[:16]}.txt"), torn)
        with open(path, "r+b") as file:
            file.truncate(whole)
            os.fsync(file.fileno())


def _hold(path: Path) -> int:
    """Lock a file. The lock ends when the file is closed or the process ends."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o640)
    try:
        if fcntl:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise AuditError(
            f"Another server writes its audit log into the folder '{path.parent.name}'. Give each server its own."
        ) from error
    return descriptor


def _sync_folder(folder: Path) -> None:
    """fsync a folder, so that new and renamed files survive a power cut; not on Windows, which cannot open folders."""
    if fcntl:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
