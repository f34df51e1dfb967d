"""`pip install .`: the researcher's part as a wheel, run from where it was unpacked, without ComfyUI or network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

COPIED = ("pyproject.toml", "README.md", "LICENSE", "safety_steering", "commands", "guardrail", "bridge", "vectors")
PLACES = {
    "safety_steering": "safety_steering",
    "safety_steering/pack/commands": "commands",
    "safety_steering/pack/guardrail": "guardrail",
    "safety_steering/pack/bridge/models": "bridge/models",
}
FROM_PYTHON = """
import json, sys
from importlib.metadata import entry_points
(command,) = [one for one in entry_points(group="console_scripts") if one.name == "safety-steering"]
main = command.load()
from safety_steering import load_vector
from safety_steering.files import commit
vector = load_vector(sys.argv[1])
sys.argv = ["safety-steering", "inspect", sys.argv[1]]
code = main()
extract = sys.modules["safety_steering_pack.commands.extract"]
print(json.dumps([code, list(vector.categories), commit(), "comfy" in sys.modules, str(extract.BUNDLED)]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, repo_root: Path) -> Path:
    """The wheel, built from a copy: a build writes beside its source."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in COPIED:
        path = repo_root / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, source / name)
    options = ["--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", str(target), str(source)]
    built = subprocess.run([sys.executable, "-m", "pip", "wheel", *options], capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    (found,) = target.glob("safety_steering-*.whl")
    return found


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `site-packages` is after an installation, inside of a repository that is not ours."""
    around = tmp_path_factory.mktemp("project")
    subprocess.run(["git", "init", "-q", str(around)], check=True)
    zipfile.ZipFile(wheel).extractall(around / "site")
    return around / "site"


def run(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=site.parent, env=environment, capture_output=True, text=True
    )


def test_it_has_one_name_and_every_module(site: Path, repo_root: Path) -> None:
    assert {path.name for path in site.iterdir() if path.suffix != ".dist-info"} == {"safety_steering"}
    for place, folder in PLACES.items():
        own = {path.relative_to(repo_root / folder) for path in (repo_root / folder).rglob("*.py")}
        packed = {path.relative_to(site / place) for path in (site / place).rglob("*.py")}
        if folder == "safety_steering":
            packed = {path for path in packed if path.parts[0] != "pack"}
        assert packed == own, folder


def test_the_command_runs(site: Path, repo_root: Path) -> None:
    prompts = repo_root / "vectors" / "prompts" / "safety_pairs.csv"
    told = run(site, "-m", "safety_steering", "prompts", str(prompts), "--examples", "0")
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("safety_pairs.csv: 408 pairs")


def test_the_entry_point_and_the_package_work_without_comfyui(site: Path, repo_root: Path) -> None:
    vector = repo_root / "vectors" / "smollm2_135m_portable.safetensors"
    told = run(site, "-c", FROM_PYTHON, str(vector))
    assert told.returncode == 0, told.stderr
    code, categories, commit, needs_comfyui, bundled = json.loads(told.stdout.splitlines()[-1])
    assert code == 0
    assert "violence" in categories
    assert commit == "unknown"
    assert not needs_comfyui
    assert Path(bundled).is_relative_to(site)
    assert (Path(bundled) / "safety_pairs.csv").is_file()
    assert (Path(bundled) / "benign_anchors.csv").is_file()
