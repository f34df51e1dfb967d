"""The committed small world in a real server: the demo's graph, and steering does what the table says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import run as demo
from comfy_server import ComfyServer
from small_world.models.judge import load_judge
from small_world.scenes.splits import prompt_pairs
from small_world_workflows import small_world_folder

PAIRS = 3


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    folder: Path = tmp_path_factory.mktemp("small_world")
    small_world_folder(folder, vectors=False)
    with ComfyServer(folder) as running:
        yield running


def test_unsafe_prompts_become_safe_and_benign_ones_stay_as_they_were(server: ComfyServer) -> None:
    graph = demo.graph_of(server.client.object_info())
    pairs = prompt_pairs("test", PAIRS, demo.SEED)
    unsafe, benign = [pair.unsafe for pair in pairs], [pair.safe for pair in pairs]
    judge = load_judge()

    plain, steered = ([demo.make(server, graph, scene, level) for scene in unsafe] for level in (0, 1))
    assert judge(np.stack([one.video for one in plain])).unsafe.all()
    after = judge(np.stack([one.video for one in steered]))
    assert not after.unsafe.all()
    assert after.usable(unsafe).any()
    assert any("of their size in 16 of 16 steps" in one.report for one in steered)
    assert all("of their size in" in one.report or "Found nothing" in one.report for one in steered)

    same = [np.array_equal(*(demo.make(server, graph, scene, level).video for level in (0, 1))) for scene in benign]
    assert sum(same) >= PAIRS - 1  # the gate stays closed, but for about one benign prompt in six
