"""The newer frontend and other Pythons: what is found, fetched and refused."""

from __future__ import annotations

import zipfile
from pathlib import Path

import environments
import frontends
import pytest
from install import InstallError


def wheel(folder: Path, *names: str) -> Path:
    path = folder / "comfyui_frontend_package-9.9.9-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, name)
    return path


def test_what_browsers_are_served_is_unpacked_and_nothing_else(tmp_path: Path) -> None:
    static = frontends.STATIC
    archive = wheel(tmp_path, f"{static}/index.html", f"{static}/assets/a.js", "comfyui_frontend_package/__init__.py")
    target = tmp_path / "cache" / "frontend"
    frontends.unpack_static(archive, target)
    assert sorted(path.relative_to(target).as_posix() for path in target.rglob("*.*")) == ["assets/a.js", "index.html"]
    assert [path.name for path in target.parent.iterdir()] == ["frontend"]


def test_a_wheel_without_a_page_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "cache" / "frontend"
    with pytest.raises(InstallError, match=r"holds no comfyui_frontend_package/static/index\.html"):
        frontends.unpack_static(wheel(tmp_path, f"{frontends.STATIC}/assets/a.js"), target)
    assert list(target.parent.iterdir()) == []


def program(path: Path, line: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
    path.chmod(0o755)


def test_a_python_that_only_stands_for_one_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "bin" / "python3.13", "echo 'python3.13: command not found' >&2; exit 127")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    with pytest.raises(InstallError, match=r"No Python 3\.13 is here"):
        environments.find_python("3.13")
    own = tmp_path / "pyenv" / "versions" / "3.13.0" / "bin" / "python"
    program(own, "echo 3.13")
    assert environments.find_python("3.13") == str(own)
