"""A server that is meant to be guarded ends if its guardrail cannot start.

Core catches exceptions of a pack that is loading, logs them, and serves; it does not catch SystemExit. This module
imports only the standard library, so that a missing package cannot stop it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PRIVATE_NAME = "safety_steering"  # of the folder in the user directory that HTTP never reaches
POLICY_FILE = "policy.toml"
POLICY_ENVIRONMENT = "SAFETY_STEERING_POLICY"


def private_folder() -> Path:
    """The folder of the policy if the environment names none."""
    import folder_paths

    return Path(folder_paths.get_system_user_directory(PRIVATE_NAME))


def is_guarded() -> bool:
    """Whether this server is meant to be guarded: the environment names a policy, or the private folder has one."""
    return bool(os.environ.get(POLICY_ENVIRONMENT)) or (private_folder() / POLICY_FILE).exists()


@contextmanager
def guarded_or_not_at_all() -> Iterator[None]:
    """End the process if the body fails and the server is meant to be guarded."""
    try:
        yield
    except Exception as error:
        if not is_guarded():
            raise
        logging.critical("Safety Steering: this server is to be guarded and cannot be: %s", error, exc_info=True)
        raise SystemExit(f"Safety Steering: the guardrail could not start, so the server ends: {error}") from error
