"""`make test-matrix`: the units on other Pythons with the newest packages, and on the lowest packages that are allowed.

    .venv/bin/python tools/start.py environments 3.12 3.13     # each in an environment of its own, in the cache
    .venv/bin/python tools/start.py environments lowest        # these packages in front of the environment in use

Without a name it runs all three. A Python that this machine does not have is said, and counts as failed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from comfy_tree import REPO_ROOT, cached_tree, comfyui_path, comfyui_python
from install import DEVELOPMENT, TORCH, InstallError, pip

PYTHONS = ("3.12", "3.13")
# the lowest versions that pyproject.toml and ComfyUI 0.30 name, with those of their time that they need
LOWEST = (
    "scikit-learn==1.3.0",
    "matplotlib==3.8.0",
    "transformers==4.50.3",
    "tokenizers==0.21.4",
    "huggingface-hub==0.36.2",
    "numpy==1.26.4",
    "scipy==1.11.4",
    "pyarrow==20.0.0",
)
VERSIONS = """import sys
from importlib.metadata import version
print("The units on Python", sys.version.split()[0], *(f"{name} {version(name)}" for name in sys.argv[1:]), sep=", ")
"""
SHOWN = ("torch", "numpy", "scipy", "scikit-learn", "matplotlib", "transformers", "pyarrow")


def candidates(version: str) -> Iterator[str]:
    """Interpreters that may be of this version: on PATH, and those of pyenv."""
    if found := shutil.which(f"python{version}"):
        yield found
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from sorted(map(str, pyenv.glob(f"versions/{version}.*/bin/python")), reverse=True)


def find_python(version: str) -> str:
    """An interpreter of a version such as 3.13. Raises InstallError when there is none."""
    ask = "import sys; print(*sys.version_info[:2], sep='.')"
    for python in candidates(version):  # pyenv puts programs on PATH that only say that they are not chosen
        if subprocess.run([python, "-c", ask], capture_output=True, text=True).stdout.strip() == version:
            return python
    raise InstallError(
        f"No Python {version} is here. Install one (with your system's packages, or pyenv), and try again."
    )


def environment(version: str) -> Path:
    """The interpreter of an environment that has ComfyUI's requirements and ours, as new as they allow."""
    folder = cached_tree().with_name(f"python-{version}")
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([find_python(version), "-m", "venv", str(folder)], check=True)
    files = (TORCH, comfyui_path() / "requirements.txt", DEVELOPMENT)
    pip(python, ["install", "--upgrade", *(part for file in files for part in ("-r", str(file)))])
    return python


def run_units(python: Path, **variables: str) -> int:
    """pytest's exit code, after it has shown the packages and its results."""
    variables = {**os.environ, "COMFYUI_PYTHON": str(python), **variables}
    subprocess.run([python, "-c", VERSIONS, *SHOWN], env=variables, check=True)
    pytest = ["-m", "pytest", "-c", "tests/pytest.ini", "--rootdir", ".", "-q", "-p", "no:cacheprovider"]
    return subprocess.run([python, *pytest, "tests/unit"], cwd=REPO_ROOT, env=variables).returncode


def run_lowest() -> int:
    """The units with the packages of `LOWEST`, which a temporary folder holds in front of the environment's own."""
    python = comfyui_python()
    with tempfile.TemporaryDirectory(prefix="safety-steering-") as folder:
        pip(python, ["install", "--quiet", "--no-deps", "--target", folder, *LOWEST])
        return run_units(python, PYTHONPATH=folder)


def main() -> int:
    names = sys.argv[1:] or [*PYTHONS, "lowest"]
    failed = []
    for name in names:
        try:
            code = run_lowest() if name == "lowest" else run_units(environment(name))
        except InstallError as error:
            print(f"{name}: {error}", file=sys.stderr)
            code = 1
        failed += [name] * bool(code)
    print(f"Green: {', '.join(name for name in names if name not in failed) or 'none'}.", end=" ")
    print(f"Failed: {', '.join(failed) or 'none'}.")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
