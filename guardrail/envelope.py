"""What a request's JSON body must look like before core reads it: types, sizes, depth and ids.

Core trusts its clients here: one value of a wrong type or depth can end its only worker or the process.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from ..safety_steering.errors import SafetySteeringError
from .plain_text import shown

DEEPEST = 100  # core copies and writes jobs recursively; drawn graphs nest about 20 deep
LONGEST_NAME = 200  # characters of a node id, a class, an input's name, a client id
WORDS = "a text"


class EnvelopeError(SafetySteeringError):
    """A request's body is not what the route takes."""


def parse_body(data: bytes) -> Any:
    """The value of a JSON body, at most DEEPEST levels deep.

    Raises:
        EnvelopeError: it is not JSON, or nested too deeply.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise EnvelopeError("The body is not valid JSON. Send a JSON object.") from error
    if depth_of(value) > DEEPEST:
        raise EnvelopeError(f"The body is nested more than {DEEPEST} levels deep. Send plainer values.")
    return value


def depth_of(value: Any) -> int:
    """How many levels of lists and objects a JSON value has, counted to just over DEEPEST; a plain value has 0."""
    level, depth = [value], 0
    while depth <= DEEPEST and (nested := [item for item in level if isinstance(item, list | dict)]):
        level = [inner for item in nested for inner in (item.values() if isinstance(item, dict) else item)]
        depth += 1
    return depth


def check_prompt_body(body: Any) -> None:
    """Check the body of `POST /prompt` but for the graph's nodes, which `admission` checks.

    Raises:
        EnvelopeError: a field has a type, a size or a value that core cannot handle; it names the field.
    """
    fields = _fields(body)
    _check(fields, "prompt", lambda value: isinstance(value, dict), "an object of nodes", needed=True)
    _check(fields, "prompt_id", lambda value: value is None or is_job_id(value), "a UUID in lower case")
    _check(fields, "number", _is_number, "a finite number")
    _check(fields, "front", _is_flag, "true or false")
    _check(fields, "client_id", _is_name_or_none, f"a text of at most {LONGEST_NAME} characters")
    _check(fields, "partial_execution_targets", _is_names_or_none, "a list of node ids")
    extra = fields.get("extra_data")
    _check(fields, "extra_data", lambda value: isinstance(value, dict), "an object")
    if isinstance(extra, dict):
        _check(extra, "client_id", _is_name_or_none, f"a text of at most {LONGEST_NAME} characters", "extra_data.")
        _check(extra, "preview_method", _is_name_or_none, WORDS, "extra_data.")
        _check(extra, "comfy_usage_source", _is_name_or_none, WORDS, "extra_data.")
        _check(
            extra, "extra_pnginfo", lambda value: value is None or isinstance(value, dict), "an object", "extra_data."
        )
        _check(extra, "create_time", _is_number, "a finite number", "extra_data.")
    for name in fields.get("prompt", {}):
        if not _is_name(name):
            raise EnvelopeError(f"The node id '{shown(name)}' is not a short printable text. Rename the node.")


def check_body(route: str, body: Any) -> None:
    """Check the JSON body of a writing route other than /prompt.

    Raises:
        EnvelopeError: a field has a wrong type; it names the field.
    """
    for name, (holds, expected) in FIELDS.get(route, {}).items():
        _check(_fields(body), name, holds, expected)
    if route in OBJECTS:
        _fields(body)


def is_job_id(value: Any) -> bool:
    """Whether `value` is a UUID as core writes it: lower case with hyphens."""
    try:
        return isinstance(value, str) and str(uuid.UUID(value)) == value
    except ValueError:
        return False


def _fields(body: Any) -> Mapping[str, Any]:
    if not isinstance(body, dict):
        raise EnvelopeError("The body is not a JSON object. Send an object.")
    return body


def _check(
    fields: Mapping[str, Any],
    name: str,
    holds: Callable[[Any], bool],
    expected: str,
    prefix: str = "",
    needed: bool = False,
) -> None:
    if name not in fields:
        if needed:
            raise EnvelopeError(f"'{prefix}{name}' is missing. Send {expected}.")
    elif not holds(fields[name]):
        raise EnvelopeError(f"'{prefix}{name}' is {shown(fields[name])}; expected {expected}.")


def _is_number(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(float(value))
    except OverflowError:
        return False


def _is_flag(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_NAME and value.isprintable()


def _is_name_or_none(value: Any) -> bool:
    return value is None or _is_name(value)


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_name, value))


def _is_names_or_none(value: Any) -> bool:
    return value is None or _is_names(value)


_NAMES = (_is_names, "a list of texts")
_FLAG = (_is_flag, "true or false")
FIELDS: Mapping[str, Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "/queue": {"clear": _FLAG, "delete": _NAMES},
    "/history": {"clear": _FLAG, "delete": _NAMES},
    "/interrupt": {"prompt_id": (_is_name_or_none, WORDS)},
    "/free": {"unload_models": _FLAG, "free_memory": _FLAG},
    "/api/jobs/cancel": {"job_ids": _NAMES},
    "/users": {"username": (_is_name, f"a text of at most {LONGEST_NAME} characters")},
    "/internal/logs/subscribe": {"clientId": (_is_name, WORDS), "enabled": _FLAG},
}
OBJECTS = frozenset({*FIELDS, "/settings"})
