"""The server fixture: core loads the pack as any other, runs and refusals come back whole, nothing outlives it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from comfy_server import DEV_FOLDER, PACK_FOLDER, ComfyServer, ServerFailed
from safety_steering_pack.commands.api_graph import PromptGraph
from safety_steering_pack.commands.comfy_client import PromptRejected
from tiny.graphs import Steer, wan21_t2v


def fail(**settings: Any) -> Steer:
    """A steer function that adds the development node which fails or slows the model calls."""
    defaults = {"fail_at_call": 0, "seconds_per_call": 0.0}
    return lambda graph, model: graph.add("SafetySteeringDev_Fail", defaults | settings, model=model)[0]


def sampling(**arguments: Any) -> PromptGraph:
    graph = PromptGraph()
    sampled = wan21_t2v(graph, **arguments)
    graph.add("SafetySteeringDev_HookCensus", model=sampled.model, after=sampled.samples)
    return graph


def is_running(pid: int) -> bool:
    """Whether the process exists and is no zombie (in a container nobody may collect an orphan's exit code)."""
    asked = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return asked.returncode == 0 and not asked.stdout.strip().startswith("Z")


def wait_until_gone(pid: int, seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not is_running(pid)


def test_core_loads_the_pack_through_its_link(server: ComfyServer) -> None:
    for folder in (PACK_FOLDER, DEV_FOLDER):
        lines = [line for line in server.log().splitlines() if line.endswith(f"custom_nodes/{folder}")]
        assert len(lines) == 1, server.log()[-3000:]
        assert "FAILED" not in lines[0], server.log()[-3000:]
    info = server.client.object_info("SafetySteering_ApplySafetySteering")
    assert info["python_module"] == f"custom_nodes.{PACK_FOLDER}"


def test_another_server_is_not_taken_for_this_one(server: ComfyServer, tmp_path: Path) -> None:
    with pytest.raises(ServerFailed, match=f"Port {server.port} is taken by another program"):
        ComfyServer(tmp_path, port=server.port).start()


def test_a_run_returns_outputs_and_events(server: ComfyServer) -> None:
    graph = sampling(steps=3, seed=11)
    run = server.client.run(graph.prompt).succeeded()
    census = json.loads(run.text(list(graph.prompt)[-1]))
    assert census["modules"] > 50
    assert census["forward_hooks"] == 0
    progress = [event["data"]["value"] for event in run.events if event["type"] == "progress"]
    assert progress == sorted(progress)
    assert progress[-1] == 3


def test_an_invalid_prompt_is_rejected_with_node_errors(server: ComfyServer) -> None:
    graph = sampling()
    graph.prompt["1"]["inputs"]["unet_name"] = "nowhere.safetensors"
    with pytest.raises(PromptRejected) as refused:
        server.client.submit(graph.prompt)
    assert refused.value.node_errors["1"]["errors"][0]["type"] == "value_not_in_list"


def test_an_exception_in_sampling_names_its_node(server: ComfyServer) -> None:
    run = server.client.run(sampling(steer=fail(fail_at_call=2), seed=12).prompt)
    assert run.status == "error"
    assert run.error is not None
    assert run.error.node_type == "KSampler"
    assert "failed on purpose in model call 2" in run.error.message
    with pytest.raises(RuntimeError, match="failed on purpose"):
        run.succeeded()


def test_an_interrupt_stops_a_run(server: ComfyServer) -> None:
    prompt = sampling(steer=fail(seconds_per_call=0.3), steps=50, seed=13).prompt
    prompt_id = server.client.submit(prompt)
    server.client.wait_for(prompt_id, "progress")
    server.client.interrupt()
    assert server.client.result(prompt_id).status == "interrupted"


def test_free_forgets_cached_outputs(server: ComfyServer) -> None:
    prompt = sampling(seed=14).prompt
    server.client.run(prompt).succeeded()
    assert "1" in server.client.run(prompt).succeeded().cached_nodes
    server.client.free()
    time.sleep(1)  # the server's worker hears of it when it wakes; a prompt that comes at once may be taken first
    assert server.client.run(prompt).succeeded().cached_nodes == frozenset()


def test_nothing_is_written_outside_the_base_directory(server: ComfyServer) -> None:
    assert (server.base_directory / "user").is_dir()
    settings = json.loads(json.dumps(server.client.request("/system_stats")["system"]["argv"]))
    assert str(server.base_directory) in settings


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    server = ComfyServer(tmp_path, arguments=("--no-such-option",))
    with pytest.raises(ServerFailed, match="no-such-option"):
        server.start()


def test_the_server_ends_even_when_its_owner_is_killed(tmp_path: Path, repo_root: Path) -> None:
    script = (
        "import sys, pathlib, time; sys.path.insert(0, sys.argv[1])\n"
        "import start; start.prepare()\n"
        "from comfy_server import ComfyServer\n"
        "server = ComfyServer(pathlib.Path(sys.argv[2]), dev_nodes=False).start()\n"
        "print(server.pid, flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", script, str(repo_root / "tools"), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert is_running(pid)
        owner.send_signal(signal.SIGKILL)
    assert wait_until_gone(pid)
