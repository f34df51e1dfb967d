"""Import mechanics shared by all tests.

- The pack is one package in every test process: ``safety_steering_pack`` (see ``tools/pack.py``). Unit tests write
  ``from safety_steering_pack.safety_steering.vectors.vector import SafetyVector`` and need no ComfyUI.
- The helpers in ``tools/`` and ``demo/`` are plain modules (``comfy_server``, ``comfy_tree``, ``tiny.models``, ...).
- The repo root is never on ``sys.path``: its ``nodes/`` would shadow ComfyUI's. Hence ``--import-mode=importlib``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO_ROOT = Path(__file__).resolve().parents[1]
# the models are tiny: threads that wait for one another cost more than they bring, here and in the server
os.environ.setdefault("OMP_NUM_THREADS", "1")

import start

start.prepare()

import frontends
import playground
from comfy_server import ComfyServer


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-docs", action="store_true", help="renew docs/images and workflow thumbnails")
    parser.addoption(
        "--newer-frontend", action="store_true", help="run the servers with the frontend of tools/frontends.py"
    )


@pytest.fixture(scope="session")
def repo_root() -> Path:
    return REPO_ROOT


@pytest.fixture(scope="session")
def base_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ComfyUI's base directory, filled by ``playground.prepare``: every tiny checkpoint (``tiny.models.TINY_MODELS``),
    the vectors that the workflows name in ``models/safety_vectors``, and the workflows' tiny variants."""
    directory = tmp_path_factory.mktemp("comfyui")
    playground.prepare(directory)
    return directory


@pytest.fixture(scope="session")
def server(base_directory: Path, request: pytest.FixtureRequest) -> Iterator[ComfyServer]:
    """A running ComfyUI with this pack and the development nodes; ``server.client.run(prompt)`` runs a prompt."""
    newer = request.config.getoption("--newer-frontend")
    arguments = ("--front-end-root", str(frontends.ensure_newer_frontend())) if newer else ()
    with ComfyServer(base_directory, arguments=arguments) as running:
        yield running
