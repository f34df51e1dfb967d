"""How server commands reach a ComfyUI server: its address, a login in front of it, and what went wrong in a sentence.

A login's token comes from the environment or a header, and is never printed or sent to another address.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import urllib.error
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from ..safety_steering.errors import SafetySteeringError, shortened
from .comfy_client import ComfyClient

SERVER = "http://127.0.0.1:8188"
TOKEN = "SAFETY_STEERING_TOKEN"
LOGIN = f"Put its token into the environment variable {TOKEN}, or give --token or --header."
HEADER = re.compile(r"([\w!#$%&'*+.^`|~-]+)[ \t]*:[ \t]*([\x21-\x7e][\x20-\x7e\t]*)", re.ASCII)
VARIABLE = re.compile(r"(\w+ )?\$(?:(\w+)|\{(\w+)\})", re.ASCII)


def add_server_options(parser: Any) -> None:
    """Add --server, --token and --header to an argument parser."""
    parser.add_argument("--server", default=SERVER, help=f"the server's address (default {SERVER})")
    parser.add_argument(
        "--token",
        metavar="VARIABLE",
        help="for a server behind a login: the environment variable that holds its token, sent as a bearer token "
        f"(default {TOKEN}, if it is set)",
    )
    parser.add_argument(
        "--header",
        action="append",
        default=[],
        metavar="NAME: VALUE",
        help="a header for each request, as often as you like; $MY_KEY or 'Bearer $MY_KEY' is taken from "
        "the environment",
    )


@contextmanager
def connected(options: argparse.Namespace) -> Iterator[ComfyClient]:
    """A client of the server that the options name, connected.

    Raises:
        SafetySteeringError: the options do not read, or the server cannot be reached; also while the block runs.
    """
    parts = _checked_address(options.server)
    netloc = parts.netloc.rpartition("@")[2]
    address = f"{parts.scheme}://{netloc}{parts.path.rstrip('/')}"
    headers = _login(parts, options.token) | _headers(options.header)
    client = ComfyClient(address, headers=headers)
    try:
        client.request("/system_stats")
        client.connect()
        yield client
    except urllib.error.HTTPError as error:
        raise SafetySteeringError(_refused(error, shortened(address), bool(headers))) from error
    except json.JSONDecodeError as error:
        raise SafetySteeringError(
            f"No ComfyUI server answers at {shortened(address)}: the answer is a page. If it is a login page: {LOGIN}"
        ) from error
    except (urllib.error.URLError, ConnectionError, TimeoutError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        why = getattr(reason, "strerror", None) or reason
        raise SafetySteeringError(
            f"No ComfyUI server answers at {shortened(address)} ({why}). "
            "Start one with `python main.py` in ComfyUI's folder, or give the address of yours with --server."
        ) from error
    finally:
        client.close()


def _refused(error: urllib.error.HTTPError, address: str, logged_in: bool) -> str:
    """Why a server answered with an error status, and what to do."""
    if error.code in (401, 403, 407):
        if logged_in:
            return f"The server at {address} refuses the login ({error.code}). Check the token or the header."
        return f"The server at {address} asks for a login ({error.code}). {LOGIN}"
    if 300 <= error.code < 400:
        to = urlsplit(error.headers.get("Location") or "")
        where = f"{to.scheme}://{to.netloc}{to.path}" if to.netloc else to.path
        return (
            f"The server at {address} redirects to {shortened(where)}. If that is a login page: {LOGIN} If it is the "
            "server's new address, give it with --server."
        )
    if error.code == 404:
        return f"No ComfyUI is at {address} (404). If it has a path there, give it too: https://example.org/comfyui"
    return (
        f"The server at {address} answers with an error ({error.code} {shortened(str(error.reason))}). Look at its log."
    )


def _checked_address(address: str) -> SplitResult:
    """The parts of an address that reads as http://host:port/path. Raises SafetySteeringError."""
    try:
        parts = urlsplit(address)
        whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number, half of an IPv6 address
        whole = False
    if not whole or re.search(r"\s", address):
        shown = re.sub(r"//[^/]*@", "//", address)  # without a password
        raise SafetySteeringError(f"--server is '{shortened(shown)}'. Give an address such as {SERVER}.")
    return parts


def _login(parts: SplitResult, variable: str | None) -> dict[str, str]:
    """The Authorization header of a token in the environment, or of user:password@ in the address."""
    token = os.environ.get(variable or TOKEN, "").strip()
    if variable and not token:  # not named here: it may be the token itself
        raise SafetySteeringError(
            "--token names an environment variable, and none of that name is set. Put the token into a variable, and "
            "give the variable's name."
        )
    if token and not HEADER.fullmatch(f"Authorization: Bearer {token}"):
        raise SafetySteeringError(f"The token in {variable or TOKEN} has characters that no header can hold. Check it.")
    if token:
        return {"Authorization": f"Bearer {token}"}
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    return {}


def _headers(given: Sequence[str]) -> dict[str, str]:
    """Headers as NAME: VALUE. No value is ever in an error: it may be secret."""
    headers: dict[str, str] = {}
    for text in given:
        header = HEADER.fullmatch(text.strip())
        if header is None:
            raise SafetySteeringError('A --header does not read. Write it as "NAME: VALUE", in plain ASCII characters.')
        name, value = header.groups()
        if variable := VARIABLE.fullmatch(value):
            scheme, plain, braced = variable.groups()
            found = os.environ.get(plain or braced, "").strip()
            if not HEADER.fullmatch(f"{name}: {found}"):
                raise SafetySteeringError(
                    f"The environment variable of --header {name} is not set, or is not plain text."
                )
            value = f"{scheme or ''}{found}"
        headers[name] = value
    return headers
