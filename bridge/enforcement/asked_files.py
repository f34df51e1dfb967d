"""Which file a request is about, found as core's own handlers find it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import folder_paths
from aiohttp import web

VIEW, USERDATA = "/view", "/userdata/{file}"
SETTINGS_FILE = "comfy.settings.json"
HASH = "blake3:"


def asked_file(request: web.Request, route: str) -> Path | None:
    """The file whose bytes a request asks for, with its folder's links followed; None if core will find none."""
    if route == VIEW:
        return _viewed(request)
    if route == USERDATA and (found := users_files(request, route)):
        users = folder_paths.get_user_directory()
        return _inside(Path(users), os.path.relpath(found[0], users))
    return None


def users_files(request: web.Request, route: str) -> list[Path]:
    """The files in a user's folder that a request reads, writes, moves or deletes."""
    from server import PromptServer

    names = [SETTINGS_FILE] if route.startswith("/settings") else [*map(request.match_info.get, ("file", "dest"))]
    find = PromptServer.instance.user_manager.get_request_user_filepath
    with suppress(KeyError):  # of no known user: the handler refuses it
        return [Path(path) for name in names if name and (path := find(request, name, create_dir=False))]
    return []


def _viewed(request: web.Request) -> Path | None:
    name = request.query.get("filename", "")
    if name.startswith(HASH):
        from server import PromptServer, resolve_hash_to_path

        owner = PromptServer.instance.user_manager.get_request_user_id(request)
        found = resolve_hash_to_path(name, owner_id=owner)
        return found and _inside(Path(found.abs_path).parent, Path(found.abs_path).name)
    name, folder = folder_paths.annotated_filepath(name)
    folder = folder or folder_paths.get_directory_by_type(request.query.get("type", "output"))
    if not (name and folder):
        return None
    return _inside(Path(folder), os.path.join(request.query.get("subfolder", ""), os.path.basename(name)))


def _inside(folder: Path, name: str) -> Path | None:
    """A path in a folder; None for one that is not valid."""
    if "\x00" in name:
        return None
    return Path(os.path.normpath(folder.resolve() / name))
