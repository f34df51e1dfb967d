"""The real frontend of a real server in headless Chromium. Screenshots go to ``tests/artifacts/`` (not committed);
``--update-docs`` also renews the pictures in ``docs/images/`` and the workflows' thumbnails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import chromium
import pytest
from playwright.sync_api import Browser, sync_playwright


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=str(chromium.ensure_chromium()), args=list(chromium.FLAGS)
        )
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def artifacts(repo_root: Path) -> Path:
    folder = repo_root / "tests" / "artifacts"
    folder.mkdir(exist_ok=True)
    return folder
