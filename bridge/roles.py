"""Which branch of guidance each sample of a model call belongs to.

Core numbers the conditionings of a call by their place in a list, and guiders fill that list as they like; the uuid of
a conditioning is what stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

BRANCHES = ("both", "positive", "negative")
UNKNOWN = "unknown"


def roles_by_uuid(conds: Mapping[str, Iterable[Mapping[str, Any]]]) -> dict[Any, str]:
    """uuid -> name under which a guider holds the conditioning ("positive", "negative", ...)."""
    return {cond["uuid"]: role for role, entries in conds.items() for cond in entries or () if "uuid" in cond}


def call_roles(transformer_options: Mapping[str, Any], roles: Mapping[Any, str]) -> tuple[str, ...]:
    """The role of each equal chunk of a model call's batch; one chunk of unknown role if core does not say."""
    return tuple(roles.get(key, UNKNOWN) for key in transformer_options.get("uuids") or (None,))


def is_targeted(role: str, branch: str) -> bool:
    """Whether a role is steered. What is not known to be negative counts as positive, and the unknown always counts."""
    if branch == "both" or role == UNKNOWN:
        return True
    return (role == "negative") == (branch == "negative")
