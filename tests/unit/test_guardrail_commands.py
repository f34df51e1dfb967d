"""`python -m safety_steering` keygen, verify and policy check, run from the pack's folder as users run them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from policy_files import write_policy
from safety_steering_pack.commands.main import main
from safety_steering_pack.guardrail.evidence import Statement, sidecar_of, sign_file
from safety_steering_pack.guardrail.keys import load_signer

STATEMENT = Statement("prompt", "0" * 64, ("1" * 64,), "steered", "delivered")


@pytest.fixture
def signed(tmp_path, capsys):
    """An output signed with a key from `keygen`, and that key's public half as it was printed."""
    assert main(["keygen", str(tmp_path / "key.pem")]) == 0
    printed = dict(line.split(": ") for line in capsys.readouterr().out.splitlines()[:2])
    signer = load_signer({"SAFETY_STEERING_SIGNING_KEY": str(tmp_path / "key.pem")})
    assert printed == {"public key": signer.public_key, "key id": signer.key_id}
    file = tmp_path / "picture.png"
    file.write_bytes(b"a picture")
    sign_file(file, STATEMENT, signer)
    return file, signer.public_key


def test_verify_prints_what_was_signed(signed, capsys):
    file, key = signed
    assert main(["verify", str(file), "--key", key]) == 0
    out = capsys.readouterr().out
    assert "The file is as it was signed." in out
    assert "verdict: steered" in out
    assert f"vectors: {'1' * 64}" in out
    assert "client_inputs" not in out  # there are none
    told = replace(STATEMENT, share=0.4, client_inputs=("3 (LoadImage)",), unjudged=("sound",))
    sign_file(file, told, load_signer({"SAFETY_STEERING_SIGNING_KEY": str(file.with_name("key.pem"))}))
    assert main(["verify", str(file), "--key", key]) == 0
    out = capsys.readouterr().out
    assert "share: 0.4\nclient_inputs: 3 (LoadImage)\nunjudged: sound\n" in out


def test_verify_fails_on_an_altered_file_and_takes_evidence_from_elsewhere(signed, tmp_path, capsys):
    file, key = signed
    evidence = sidecar_of(file).rename(tmp_path / "elsewhere.json")
    assert main(["verify", str(file), "--key", key]) == 1
    assert "There is no evidence" in capsys.readouterr().err
    assert main(["verify", str(file), "--key", key, "--evidence", str(evidence)]) == 0
    file.write_bytes(b"another")
    assert main(["verify", str(file), "--key", key, "--evidence", str(evidence)]) == 1
    assert "not the file that was signed" in capsys.readouterr().err


def test_verify_trusts_its_own_key_or_asks_for_one(signed, tmp_path, capsys, monkeypatch):
    file, _ = signed
    monkeypatch.delenv("SAFETY_STEERING_SIGNING_KEY", raising=False)
    assert main(["verify", str(file)]) == 1
    assert "Give the maker's public key: --key PUBLIC" in capsys.readouterr().err
    monkeypatch.setenv("SAFETY_STEERING_SIGNING_KEY", str(tmp_path / "key.pem"))
    assert main(["verify", str(file)]) == 0
    file.write_bytes(b"another")
    assert main(["verify", str(file)]) == 1


def test_a_python_without_the_packages_is_told(repo_root):
    """-S leaves out what is installed beside Python itself, as a system's own Python has it."""
    command = [sys.executable, "-S", "-m", "safety_steering", "--help"]
    ran = subprocess.run(command, cwd=repo_root, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert re.fullmatch(r"This Python has no '\w+'. Run the command with the Python that runs ComfyUI.\n", ran.stderr)


def test_keygen_overwrites_nothing(tmp_path, capsys):
    (tmp_path / "key.pem").write_text("precious")
    assert main(["keygen", str(tmp_path / "key.pem")]) == 1
    assert "exists, and no key is written over. Name another file" in capsys.readouterr().err
    assert (tmp_path / "key.pem").read_text() == "precious"


def test_policy_check_says_what_a_policy_does(tmp_path, capsys):
    path = write_policy(tmp_path, tables="[permits]\napi_nodes = true")
    assert main(["policy", "check", str(path)]) == 0
    out = capsys.readouterr().out
    how = "strength 6, clamp, norm token, recommended (family default) at level 1"
    assert f"rule 1: family wan is steered at conditioning ({how})" in out
    assert "warning: rule 1: its settings are not calibrated (family default)" in out
    assert "permitted: api_nodes" in out
    assert "a model without a rule: refuse" in out


def test_policy_check_fails_with_one_sentence(tmp_path, capsys):
    assert main(["policy", "check", str(write_policy(tmp_path, top="with_rule = 1"))]) == 1
    assert "with_rule: there is no such key" in capsys.readouterr().err


def test_they_run_from_the_packs_folder(signed, repo_root):
    file, key = signed
    command = [sys.executable, "-m", "safety_steering", "verify", str(file), "--key", key]
    run = subprocess.run(command, cwd=repo_root, env=os.environ, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    assert "verdict: steered" in run.stdout


def test_no_class_exists_twice_in_the_command_line(repo_root):
    """Its two packages meet in one process under one name, though it starts without a parent package."""
    code = """
import gc, runpy, sys
sys.argv = ["safety_steering", "policy", "check", "no_such.toml"]
try:
    runpy.run_module("safety_steering", run_name="__main__", alter_sys=True)
except SystemExit as end:
    assert end.code == 1
ours = [c for c in gc.get_objects() if isinstance(c, type) and "safety_steering" in str(c.__module__)]
names = [f"{c.__module__.rpartition('.')[2]}.{c.__qualname__}" for c in ours]
assert {"errors.PolicyError", "vector.SafetyVector"} <= set(names)
assert len(names) == len(set(names)), sorted(names)
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=repo_root, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
