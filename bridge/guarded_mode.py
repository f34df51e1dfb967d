"""Guarded or not at all: a server that is meant to be guarded ends rather than serve without its guardrail.

Core catches what a pack raises while it loads, logs it, and serves on. SystemExit it does not catch. This file imports
nothing that could itself be what is missing.
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
    """Where a policy is looked for when the environment names none."""
    import folder_paths

    return Path(folder_paths.get_system_user_directory(PRIVATE_NAME))


def is_guarded() -> bool:
    """Whether this server is meant to be guarded: a policy is named by the environment, or lies in its place."""
    return bool(os.environ.get(POLICY_ENVIRONMENT)) or (private_folder() / POLICY_FILE).exists()


@contextmanager
def guarded_or_not_at_all() -> Iterator[None]:
    """Ends the process if what is done inside fails and the server is meant to be guarded."""
    try:
        yield
    except Exception as error:
        if not is_guarded():
            raise
        logging.critical("Safety Steering: this server is to be guarded and cannot be: %s", error, exc_info=True)
        raise SystemExit(f"Safety Steering: the guardrail could not start, so the server ends: {error}") from error
