"""Which branch of guidance each sample of a model call belongs to.

Core numbers the chunks of a call by the list of conditionings that they come from. The order of these lists depends on
the guider, so a list is identified by the uuid of its first conditioning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

BRANCHES = ("both", "positive", "negative")
UNKNOWN = "unknown"


def roles_by_uuid(conds: Mapping[str, Iterable[Mapping[str, Any]]]) -> dict[Any, str]:
    """uuid -> name under which a guider holds the conditioning ("positive", "negative", ...)."""
    return {cond["uuid"]: role for role, entries in conds.items() for cond in entries or () if "uuid" in cond}


def list_roles(conds: Sequence[Sequence[Mapping[str, Any]] | None], roles: Mapping[Any, str]) -> tuple[str, ...]:
    """The role of each list of conditionings that core batches together: that of its first entry.

    The later ones may be copies that core made of another list's areas, and those carry the other list's uuid.
    """
    return tuple(roles.get(entries[0].get("uuid"), UNKNOWN) if entries else UNKNOWN for entries in conds)


def call_roles(
    transformer_options: Mapping[str, Any], roles: Mapping[Any, str], lists: Sequence[str] = ()
) -> tuple[str, ...]:
    """The role of each equal chunk of a model call's batch; one chunk of unknown role if core does not give them.

    lists: from `list_roles`, for the batch that the call is a part of; without it the uuids decide.
    """
    indices = transformer_options.get("cond_or_uncond")
    if indices and max(indices) < len(lists):
        return tuple(lists[index] for index in indices)
    return tuple(roles.get(key, UNKNOWN) for key in transformer_options.get("uuids") or (None,))


def is_targeted(role: str, branch: str) -> bool:
    """Whether a role is steered. Every role but negative counts as positive; an unknown role is always steered."""
    if branch == "both" or role == UNKNOWN:
        return True
    return (role == "negative") == (branch == "negative")
