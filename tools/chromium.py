"""Finds a Chromium for the browser tests, or gets one: Debian's package, else Playwright's own download.

.venv/bin/python tools/chromium.py        # prints its path
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MACOS_APPS = (
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
# Without the sandbox because containers run as root; the rest keeps it from calling home at every start.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class NoChromium(Exception):
    """No Chromium was found and none could be installed; the message says what was tried."""


def installed_chromium() -> Path | None:
    """CHROMIUM_PATH, or a Chromium or Chrome on this machine; None if there is none."""
    if chosen := os.environ.get("CHROMIUM_PATH"):
        return Path(chosen)
    found = [shutil.which(name) for name in NAMES] + [path for path in MACOS_APPS if os.path.exists(path)]
    return next((Path(path) for path in found if path), None)


def playwright_chromium() -> Path | None:
    """The Chromium that Playwright has downloaded for itself; None if it has not."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = Path(playwright.chromium.executable_path)
    return path if path.exists() else None


def install_debian_package() -> str:
    """Install Debian's chromium; returns what went wrong, or an empty string."""
    if not shutil.which("apt-get"):
        return "no apt-get on this machine"
    if os.geteuid() != 0:
        return "apt-get needs root; `sudo apt-get install chromium` would do"
    for command in (["update"], ["install", "-y", "--no-install-recommends", "chromium"]):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        done = subprocess.run(["apt-get", *command], capture_output=True, text=True, env=environment)
        if done.returncode != 0:
            return f"apt-get {' '.join(command)} failed: {done.stderr.strip()[-500:]}"
    return "" if installed_chromium() else "apt-get installed the package, but no chromium is on PATH"


def download_with_playwright() -> str:
    """Let Playwright download its own; returns what went wrong, or an empty string."""
    command = [sys.executable, "-m", "playwright", "install", "chromium"]
    done = subprocess.run(command, capture_output=True, text=True)
    return "" if done.returncode == 0 else f"playwright install chromium failed: {done.stderr.strip()[-500:]}"


def ensure_chromium() -> Path:
    """A Chromium to use, installed if need be. Raises NoChromium."""
    if found := installed_chromium() or playwright_chromium():
        return found
    tried = []
    for get in (install_debian_package, download_with_playwright):
        print(f"No Chromium yet: {get.__name__.replace('_', ' ')} ...", file=sys.stderr, flush=True)
        if problem := get():
            tried.append(problem)
        elif found := installed_chromium() or playwright_chromium():
            return found
    raise NoChromium(
        "The browser tests need Chromium or Chrome. None is installed, and none could be got:\n  - "
        + "\n  - ".join(tried)
        + "\nInstall one, or set CHROMIUM_PATH to its executable."
    )


if __name__ == "__main__":
    try:
        print(ensure_chromium())
    except NoChromium as error:
        raise SystemExit(str(error)) from None
