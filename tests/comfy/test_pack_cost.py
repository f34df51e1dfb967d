"""What the pack adds to ComfyUI's start: time, memory and modules, measured in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

RUNS = 5
SECONDS = 0.250  # seen: 0.12; half of it makes the dataclasses
BYTES = 20 * 1024 * 1024
# Heavy packages that only some nodes need: they are imported when such a node runs, not when ComfyUI starts.
LAZY = ("matplotlib", "sklearn", "pandas", "datasets", "gguf", "pyarrow")

# Everything that ComfyUI itself has imported before it comes to custom nodes is imported first, and is not counted.
START = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
from comfy_tree import comfyui_on_path
comfyui_on_path("--base-directory", sys.argv[2])
import asyncio, server, execution, nodes
from comfy_api.latest import ComfyExtension, io, ui
import pack

def resident():
    with open("/proc/self/status") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmRSS"))

async def start():
    extension = await pack.load().comfy_entrypoint()
    await extension.on_load()
    return [node.GET_SCHEMA().node_id for node in await extension.get_node_list()]

before, held, started = set(sys.modules), resident(), time.process_time()
ids = asyncio.run(start())
seconds = time.process_time() - started
modules = sorted(set(sys.modules) - before)
print(json.dumps({"seconds": seconds, "bytes": resident() - held, "ids": ids, "modules": modules}))
"""


@pytest.fixture(scope="module")
def starts(repo_root, tmp_path_factory):
    """What each of several fresh processes measured while it loaded the pack as ComfyUI does."""
    if not os.path.exists("/proc/self/status"):
        pytest.skip("measures memory through Linux's /proc")
    folder = tmp_path_factory.mktemp("start")
    (folder / "custom_nodes").mkdir()
    command = [sys.executable, "-c", START, str(repo_root / "tools"), str(folder)]
    # as on a user's machine, the first start compiles the pack and the others read what it compiled
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    run = {"check": True, "capture_output": True, "text": True, "env": environment}
    outputs = [subprocess.run(command, **run).stdout for _ in range(RUNS)]
    return [json.loads(output.splitlines()[-1]) for output in outputs]


def test_loading_the_pack_takes_little_time_and_memory(starts):
    assert all("SafetySteering_ApplySafetySteering" in start["ids"] for start in starts)
    # processor time, the best of several: a busy machine makes it longer, nothing makes it shorter
    assert min(start["seconds"] for start in starts) < SECONDS
    assert min(start["bytes"] for start in starts) < BYTES


def test_loading_the_pack_imports_nothing_heavy(starts):
    imported = {module.split(".")[0] for module in starts[0]["modules"]}
    assert imported.isdisjoint({*LAZY, "transformers"})
    assert "safety_steering_pack" in imported
