"""The documents' commands that talk to a server, and the Python of demo/small_world/README.md."""

from __future__ import annotations

import re

import pytest
from comfy_server import ComfyServer
from doc_snippets import Snippet, commands, python_blocks
from safety_steering_pack.commands.main import main

SERVED = [
    command
    for command in commands()
    if "safety_steering" in command.words and set(command.words) & {"calibrate", "capture"}
]
FEW, FEW_STEPS = 2, 1


@pytest.mark.parametrize("command", SERVED, ids=str)
def test_a_server_misses_nothing_but_the_readers_files(
    server: ComfyServer, command: Snippet, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = command.words[command.words.index("safety_steering") + 1 :]
    assert main([*arguments, "--server", server.address]) == 1
    complaints = capsys.readouterr().err.strip().splitlines()
    files = [word for word in arguments if "." in word and "=" not in word]
    absent = [line for line in complaints if any(f"'{name}'" in line for name in files)]
    assert absent, complaints
    assert complaints == absent


def test_the_python_of_the_small_world_runs(comfy_in_process: object) -> None:
    """On two prompts in place of 64, and with one step in place of 16."""
    (block,) = [block for block in python_blocks() if block.document == "demo/small_world/README.md"]
    code = re.sub(r'("validation"), 64', rf"\1, {FEW}", block.words[0])
    code = re.sub(r"(generate\(.*)\)(  #)", rf"\1, how=Sampling(steps={FEW_STEPS}))\2", code)
    assert code.count("how=") == 2
    names: dict[str, object] = {}
    exec(code, names)
    assert len(names["videos"]) == FEW
