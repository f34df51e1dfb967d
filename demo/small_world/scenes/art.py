"""Emoji pictures (npm `emoji-datasource-google`, art Apache-2.0), fetched once by name and pinned by hash.

Nothing of the artwork is copied into the repository: the archive stays in the user's cache folder.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tarfile
from functools import lru_cache
from pathlib import Path

import numpy as np

PACKAGE = "emoji-datasource-google@16.0.0"
ARCHIVE = "emoji-datasource-google-16.0.0.tgz"
SHA256 = "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438"
PICTURES = "package/img/google/64/"


def cache_dir() -> Path:
    """Where downloads and training intermediates live: `$SAFETY_STEERING_CACHE` or `~/.cache/safety-steering`."""
    return Path(os.environ.get("SAFETY_STEERING_CACHE", Path.home() / ".cache" / "safety-steering"))


@lru_cache(maxsize=1)
def art_folder() -> Path:
    """The folder of 64 px PNGs, downloading (`npm pack`) and unpacking on first use.

    Raises `RuntimeError` if the package cannot be had or is not the pinned one.
    """
    home = cache_dir() / "npm"
    folder = home / PICTURES
    if (home / "unpacked").exists():
        return folder
    home.mkdir(parents=True, exist_ok=True)
    archive = home / ARCHIVE
    if not archive.exists():
        try:
            subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=home, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            reason = getattr(error, "stderr", "") or error
            raise RuntimeError(
                f"The small world draws with the npm package {PACKAGE}, and `npm pack` failed: {reason}. "
                f"Install npm, or put {ARCHIVE} into {home} yourself."
            ) from error
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != SHA256:
        raise RuntimeError(f"{archive} has sha256 {digest}, expected {SHA256}. Delete it and run again.")
    with tarfile.open(archive) as tar:
        wanted = [m for m in tar.getmembers() if m.isfile() and m.name.startswith(PICTURES)]
        tar.extractall(home, members=wanted, filter="data")
    (home / "unpacked").touch()
    return folder


@lru_cache(maxsize=4096)
def sprite(code: str, size: int) -> np.ndarray:
    """The picture `code` at `size` x `size` pixels: float32 (size, size, 4) in [0, 1], premultiplied."""
    from PIL import Image

    path = art_folder() / f"{code}.png"
    if not path.exists():
        raise FileNotFoundError(f"no picture {code}.png in {PACKAGE} (looked in {path.parent})")
    # "RGBa" is premultiplied: resizing straight alpha would bleed the colour of transparent pixels into edges.
    image = Image.open(path).convert("RGBA").convert("RGBa").resize((size, size), Image.Resampling.LANCZOS)
    return np.clip(np.asarray(image, np.float32) / 255.0, 0.0, 1.0)
