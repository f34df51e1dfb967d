"""The audit log: one JSON line for each job, in a folder that one server uses. Each line names the sha256 of the one
before it.

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
PROBE, PROBE_BYTES = "audit.probe", 65_536
MEGABYTE = 1024 * 1024
BEGINNING = "0" * 64  # what the first line names as the one before it


class AuditLog:
    """The log in one folder, for any number of threads. `close` releases the folder.

    Raises:
        AuditError: on construction, if the folder cannot be written or another server uses it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._failed = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._held = _hold(folder / LOCK)
            _set_torn_line_aside(folder / LOG)
            self._last = _last_hash(folder)
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
                entry = asdict(record) | {"previous": self._last}
                line = json.dumps(entry, separators=(",", ":"), allow_nan=False).encode() + b"\n"
                if self._size() and self._size() + len(line) > settings.rotate_megabytes * MEGABYTE:
                    self._rotate(settings.keep_files)
                _append(self.path, line)
                self._last, self._failed = hashlib.sha256(line).hexdigest(), False
            except (OSError, TypeError, ValueError) as error:
                self._failed = True
                raise AuditError(f"The job cannot be written to the audit log: {error}.") from error

    def check(self) -> None:
        """After a line could not be written: raise AuditError unless lines can be written again."""
        if not self._failed:
            return
        probe = self.folder / PROBE
        try:
            _append(probe, b" " * PROBE_BYTES)
            self._failed = False
        except OSError as error:
            raise AuditError(f"The audit log cannot be written: {error}. Make room in its folder.") from error
        finally:
            probe.unlink(missing_ok=True)

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


def verify_log(folder: Path) -> str:
    """Check that every line of a log names the sha256 of the line before it; returns what was found, in one sentence.

    Raises:
        AuditError: a line was altered, taken out, put in or moved; it names the line.
    """
    lines = [(file, number, line) for file in log_files(folder) for number, line in enumerate(_lines_of(file), start=1)]
    if not lines:
        raise AuditError(f"There is no audit log in the folder '{folder.name}'.")
    previous = first = _previous_of(*lines[0])
    for file, number, line in lines:
        if _previous_of(file, number, line) != previous:
            raise AuditError(
                f"Line {number} of {file.name} does not follow the line before it: a line there was altered, taken out "
                "or put in. Do not trust the log from there on."
            )
        previous = hashlib.sha256(line).hexdigest()
    older = "" if first == BEGINNING else " Older files were deleted."
    found = "There is 1 line." if len(lines) == 1 else f"{len(lines)} lines follow one another without a gap."
    return f"{found}{older} The last has the sha256 {previous}."


def log_files(folder: Path) -> list[Path]:
    """The files of a log, the oldest first."""
    return [file for file in (*sorted(folder.glob("audit-*.jsonl")), folder / LOG) if file.exists()]


def _lines_of(file: Path) -> list[bytes]:
    return [line for line in file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def _previous_of(file: Path, number: int, line: bytes) -> str:
    """The sha256 that a line names; BEGINNING for lines of logs that were not chained yet."""
    try:
        return str(json.loads(line).get("previous", BEGINNING))
    except (ValueError, AttributeError, RecursionError) as error:
        raise AuditError(f"Line {number} of {file.name} is no record: it was altered.") from error


def _last_hash(folder: Path) -> str:
    lines = [line for file in log_files(folder)[-2:] for line in _lines_of(file)[-1:]]
    return hashlib.sha256(lines[-1]).hexdigest() if lines else BEGINNING


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
