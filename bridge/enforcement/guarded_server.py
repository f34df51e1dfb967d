"""What the jobs of a guarded server share: policy, audit log, signing key, metrics, and whether it serves."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import folder_paths

from ...guardrail.audit import AuditLog
from ...guardrail.job_record import NOT_SAMPLED, REFUSED, JobRecord
from ...guardrail.keys import Signer, load_signer
from ...guardrail.metrics import Metrics
from ...guardrail.policy import Policy
from ...guardrail.policy_store import PolicyStore
from ...guardrail.public_folders import PublicFolders
from ...safety_steering.errors import SafetySteeringError
from ..folders import VECTORS, sha256_of
from .choke_points import Guarded, UnknownCore, Wrap
from .jobs.admission import check_prompt
from .jobs.folder_watch import FolderWatch
from .jobs.staging import Staging
from .unknown_files import UnknownFiles
from .worker import Worker


class GuardedServer:
    """The shared state of a guarded server. Its methods may be called from any thread.

    guarded: core's wrapped functions, once they are wrapped. signer: None until a policy asks for signatures. is_busy:
    whether a job runs.
    """

    def __init__(
        self,
        store: PolicyStore,
        public: PublicFolders,
        staging: Staging,
        folders: FolderWatch,
        unknown: UnknownFiles,
    ) -> None:
        self.store = store
        self.metrics = Metrics()
        self.guarded: Guarded | None = None
        self.signer: Signer | None = None
        self.worker = Worker()
        self.staging = staging
        self.folders = folders
        self.unknown = unknown
        self.is_busy: Callable[[], bool] = lambda: False
        self._public = public
        self._log: AuditLog | None = None
        self._lock = threading.Lock()

    def wraps(self) -> dict[str, Wrap]:
        """Choke point -> what is put around its function: vector files that may not be loaded are in no list."""
        return {"lists": self._around_lists}

    def _around_lists(self, original: Callable[[str], list[str]]) -> Callable[[str], list[str]]:
        def get_filename_list(folder_name: str) -> list[str]:
            names = original(folder_name)
            if folder_name != VECTORS.folder:
                return names
            paths = {name: folder_paths.get_full_path(folder_name, name) for name in names}
            return [name for name, path in paths.items() if path and self.may_show(Path(path))]

        return get_filename_list

    def ready(self) -> Policy:
        """The policy in force, after checking everything that a job needs.

        Raises:
            SafetySteeringError: the policy, the audit log or the key is not usable, or the worker has died.
        """
        self.worker.check()
        policy = self.store.current()
        if self.guarded is not None:
            with suppress(UnknownCore):  # it is put back; the job that ran meanwhile is refused, and no other
                self.guarded.check()
        with self._lock:
            if policy.settings.evidence.sign and self.signer is None:
                self.signer = load_signer(public=self._public)
            if self._log is None or self._log.folder != policy.audit_folder:
                if self._log is not None:
                    self._log.close()
                    self._log = None
                self._log = AuditLog(policy.audit_folder)
            self._log.check()
        return policy

    @property
    def signs(self) -> bool:
        """Whether the policy asks for signatures; also while there is none."""
        policy = self.store.last
        return policy is None or policy.settings.evidence.sign

    def problem(self) -> str:
        """Why this server does not serve now, or an empty string."""
        try:
            self.ready()
        except SafetySteeringError as error:
            return str(error)
        return ""

    def may_show(self, vector: Path) -> bool:
        """Whether clients may see a vector file: only if they may load it."""
        try:
            policy = self.ready()
        except SafetySteeringError:
            return False
        return policy.allows_node("SafetySteering_LoadSafetyVector") and policy.allows_vector(sha256_of(vector))

    def may_view(self, path: Path) -> bool:
        """Whether a file that a client asks for may be shown. What no record knows is put aside, but not while a job
        runs, which may be writing it."""
        if not (self.signs and self.unknown.refuses(path)):
            return True
        if not self.is_busy():
            self.unknown.put_aside(path)
        return False

    def admit(self, prompt: Any) -> None:
        """Raise SafetySteeringError if the policy refuses the graph; the refusal is written to the audit log."""
        try:
            check_prompt(prompt, self.ready())
        except SafetySteeringError as error:
            self.write_refusal("", str(error))
            raise

    def write(self, record: JobRecord, policy: Policy) -> None:
        """Append a job's line to the audit log; AuditError if it cannot be written."""
        with self._lock:
            if self._log is None:
                raise SafetySteeringError("The audit log is not open, so nothing is delivered.")
            self._log.append(record, policy.settings.audit)

    def write_refusal(self, prompt_id: str, reason: str) -> None:
        """Write a refusal to the audit log. If that fails, it is only logged: there is no output to withhold."""
        logging.warning("Safety Steering: refused: %s", reason)
        self.metrics.add("refused")
        try:
            policy = self.store.current()
            self.write(JobRecord(prompt_id, policy.sha256, NOT_SAMPLED, REFUSED, reason), policy)
        except SafetySteeringError as error:
            logging.error("Safety Steering: the refusal is not in the audit log: %s", error)
