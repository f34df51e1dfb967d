"""The real frontend of a real server in headless Chromium. Screenshots go to ``tests/artifacts/`` (not committed);
``--update-docs`` also renews the pictures in ``docs/images/`` and the workflows' thumbnails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import chromium
import pytest
from comfy_server import ComfyServer
from frontend import wait_until_ready
from playwright.sync_api import Browser, Page, sync_playwright


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=str(chromium.ensure_chromium()), args=list(chromium.FLAGS)
        )
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Browser, server: ComfyServer) -> Iterator[Page]:
    """The frontend, ready, in a window large enough to show a whole workflow with legible widgets."""
    context = browser.new_context(viewport={"width": 2560, "height": 1440})
    opened = context.new_page()
    opened.goto(server.address)
    wait_until_ready(opened)
    yield opened
    context.close()


@pytest.fixture(scope="session")
def artifacts(repo_root: Path) -> Path:
    folder = repo_root / "tests" / "artifacts"
    folder.mkdir(exist_ok=True)
    return folder
