"""The start of a guarded server: wrap core's functions, check the health of steering, add the routes."""

from __future__ import annotations

import logging
from pathlib import Path

from ...guardrail.policy import find_policy
from ...guardrail.policy_store import PolicyStore
from ...guardrail.public_folders import PublicFolders
from ..guarded_mode import private_folder
from .choke_points import Guarded
from .clean_logs import clean_logs
from .guarded_server import GuardedServer
from .health_check import check_health
from .jobs.folder_watch import FolderWatch
from .jobs.job_guard import JobGuard
from .jobs.node_facts import CORE_FOLDERS
from .jobs.staging import SERVED, Staging
from .media import guard_media
from .patterns import guard_patterns
from .routes import add_routes
from .unknown_files import UnknownFiles
from .worker import end_process


def start_guardrail() -> GuardedServer:
    """Guard this server.

    Raises:
        SafetySteeringError: core is not as expected, clients can write the policy, or steering does not act.
    """
    public = _public_folders()
    path = find_policy(private_folder())
    assert path is not None  # it is started only where there is one
    public.refuse(path, f"The policy {path.name}")
    staging = Staging(private_folder() / "staging")
    staging.clear()
    input_folder, *served = public.folders
    assert public.users is not None
    watch = FolderWatch(tuple(served), input_folder, public.users)
    unknown = UnknownFiles(dict(zip(SERVED, served, strict=True)), watch, private_folder() / "quarantine")
    server = GuardedServer(PolicyStore(path, public), public, staging, watch, unknown)
    jobs = JobGuard(server)
    server.is_busy = lambda: jobs.job is not None
    clean_logs()
    guard_media()
    guard_patterns(CORE_FOLDERS[1:])
    server.guarded = Guarded(
        {**server.worker.wraps(), **server.wraps(), **staging.wraps(), **jobs.wraps()}, end_process
    )
    check_health(jobs)
    if server.signs and (count := unknown.sweep()):
        files = "file" if count == 1 else "files"
        logging.warning("Safety Steering: %d %s without a record moved to %s.", count, files, "quarantine")
    add_routes(server)
    logging.info("Safety Steering: this server is guarded. %s", server.problem() or "The policy is in force.")
    return server


def _public_folders() -> PublicFolders:
    import folder_paths

    folders = (folder_paths.get_input_directory(), folder_paths.get_output_directory())
    return PublicFolders(
        folders=tuple(Path(folder) for folder in (*folders, folder_paths.get_temp_directory())),
        users=Path(folder_paths.get_user_directory()),
    )
