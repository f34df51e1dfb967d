"""tools/start.py, by which every script of the repository is started."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import start


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(start.command(*arguments), cwd=folder, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    "module", ["nope", "small_world.nope", "nope.build", "small_world", "tools/install.py", ".build", ""]
)
def test_a_module_that_is_not_there_gets_one_sentence(tmp_path, module):
    done = run(tmp_path, module)
    assert done.returncode == 1
    assert done.stderr.startswith(f"There is no module {module} to run. Name one of tools, demo, ")
    assert len(done.stderr.splitlines()) == 1
    assert not done.stdout


def test_without_a_module_it_says_what_to_give(tmp_path):
    done = subprocess.run(start.command("")[:-1], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert (
        done.stderr
        == "No module is named. Name one of tools, demo, bench, tests/helpers, for example small_world.build.\n"
    )


def test_a_script_runs_from_any_folder_and_gets_its_arguments(tmp_path):
    done = run(tmp_path, "workflow_builder.build", "--help")
    assert done.returncode == 0, done.stderr
    assert "usage: build.py" in done.stdout
    assert not list(tmp_path.iterdir())


def test_an_error_inside_a_script_is_shown_whole(tmp_path):
    """An import that fails inside a module is not taken for a missing module."""
    (tmp_path / "broken_script.py").write_text("import no_such_package\n")
    code = (
        f"import sys; sys.path += [{str(tmp_path)!r}, {str(Path(start.__file__).parent)!r}]; import start; start.main()"
    )
    command = [start.command("x")[0], "-c", code, "broken_script"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "No module named 'no_such_package'" in done.stderr
    assert "There is no module" not in done.stderr


def test_processes_that_a_script_starts_find_the_pack(tmp_path):
    """A spawned process gets the paths of its parent and imports the script by its name, without `start`."""
    code = f"import sys; sys.path += {[str(start.REPO_ROOT / folder) for folder in start.FOLDERS]!r}; " + (
        "import small_world.native.compare"
    )
    done = subprocess.run([start.command("x")[0], "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
