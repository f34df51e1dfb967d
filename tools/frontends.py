"""A newer frontend for ComfyUI, beside the one that its environment has: the browser tests run on both.

    .venv/bin/python tools/frontends.py                           # unpacks it into the cache; prints its folder
    .venv/bin/python -m pytest tests/browser --newer-frontend     # the browser tests on it

The environment stays as it is: ComfyUI serves another frontend's folder if ``--front-end-root`` names it.
"""

from __future__ import annotations

import os
import sys
import tempfile
import zipfile
from pathlib import Path

from comfy_tree import cached_tree, comfyui_python
from install import InstallError, pip, verify_sha256

PACKAGE, VERSION = "comfyui-frontend-package", "1.58.1"
SHA256 = "37912597537a731a8f421179618a736c24184c5bdbfa327f38b2fb7c291852d9"
STATIC = "comfyui_frontend_package/static"


def cached_frontend() -> Path:
    """Where the newer frontend lies: beside ComfyUI's trees, shared by every clone."""
    return cached_tree().with_name(f"frontend-{VERSION}")


def ensure_newer_frontend() -> Path:
    """The folder that ``--front-end-root`` takes; fetched if it is not there yet. Raises InstallError."""
    target = cached_frontend()
    if not target.exists():
        with tempfile.TemporaryDirectory(prefix="safety-steering-") as folder:
            options = ["--no-deps", "--only-binary", ":all:", "-d", folder]
            pip(comfyui_python(), ["download", *options, f"{PACKAGE}=={VERSION}"])
            wheels = list(Path(folder).glob("*.whl"))
            if len(wheels) != 1:
                raise InstallError(f"pip downloaded {[one.name for one in wheels]}; expected one wheel of {PACKAGE}.")
            verify_sha256(wheels[0], SHA256)
            unpack_static(wheels[0], target)
    return target


def unpack_static(wheel: Path, target: Path) -> None:
    """Unpack the files that browsers are served, and move them to ``target`` in one step. Raises InstallError."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".unpack-") as temporary:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(temporary, [name for name in archive.namelist() if name.startswith(f"{STATIC}/")])
        static = Path(temporary) / STATIC
        if not (static / "index.html").is_file():
            raise InstallError(f"{wheel.name} holds no {STATIC}/index.html.")
        if not target.exists():
            os.replace(static, target)


if __name__ == "__main__":
    try:
        print(ensure_newer_frontend())
    except InstallError as error:
        sys.exit(str(error))
