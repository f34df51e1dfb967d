"""The policy in force: read again before each job; none while the file is invalid."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from time import sleep

from .errors import PolicyError
from .policy import Policy, load_policy, read_policy
from .public_folders import PublicFolders

SETTLE_SECONDS = 0.05
SETTLE_TRIES = 40


class PolicyStore:
    """The policy of one file, for any number of threads.

    `current` reads the (small) file each time: a time stamp would miss two writes within one tick of the clock.
    """

    def __init__(self, path: Path, public: PublicFolders | None = None) -> None:
        self.path = path
        self._public = public or PublicFolders()
        self._lock = threading.Lock()
        self._policy: Policy | None = None

    @property
    def last(self) -> Policy | None:
        """The policy as it was last read; None if the file was invalid then."""
        return self._policy

    def current(self) -> Policy:
        """The policy as the file has it now; the same object as before while its bytes are the same.

        Raises:
            PolicyError: the file is missing or invalid. A former policy does not go on: nothing may be sampled.
        """
        with self._lock:
            try:
                data = read_policy(self.path)
                if self._policy is None or self._policy.sha256 != _sha256(data):
                    self._policy = load_policy(self.path, self._public, self._settled(data))
            except PolicyError:
                self._policy = None
                raise
            return self._policy

    def _settled(self, data: bytes) -> bytes:
        """The file's bytes once two reads agree: a file that is being written is incomplete for a moment."""
        for _ in range(SETTLE_TRIES):
            sleep(SETTLE_SECONDS)
            former, data = data, read_policy(self.path)
            if former == data:
                return data
        raise PolicyError(f"The policy {self.path.name} keeps changing. Replace it by renaming a finished file.")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
