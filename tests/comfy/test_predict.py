"""The predicted price of a hook (bench/predict.py): its counts, and the ratio worked out by hand."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

# In a process of its own: the bench chooses ComfyUI's attention for all that it imports.
COUNT = """
import json, sys
sys.path.insert(0, "tools")
import start
start.prepare()
import torch
from predict import BytesMoved, block_flops, counted_block_flops, hook_bytes_per_token, predict

with BytesMoved() as moved:
    a = torch.zeros(100, 3)
    a.T  # a view moves nothing
    b = a + torch.zeros(1, 3).expand(100, 3)  # what is broadcast is stored once
print(json.dumps({
    "moved": moved.total,
    "formula": [block_flops(64), block_flops(200)],
    "counted": [counted_block_flops(64), counted_block_flops(200)],
    "block_720p": block_flops(21 * 45 * 80),
    "add": hook_bytes_per_token("add", "none", "off"),
    "clamp": hook_bytes_per_token("clamp", "token", "off"),
    "one": predict("add", "none", "off", False)["720p"],
    "all": predict("add", "none", "off", True)["720p"],
}))
"""


@pytest.fixture(scope="module")
def counts(repo_root):
    run = subprocess.run([sys.executable, "-c", COUNT], cwd=repo_root, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def test_the_formula_of_a_blocks_operations_is_what_pytorch_counts(counts):
    assert counts["formula"] == counts["counted"]


def test_a_blocks_operations_worked_out_by_hand(counts):
    """By width 1536, hidden 8960, 512 text tokens: projections, attention, feed-forward."""
    assert counts["formula"][0] == 6_643_777_536 + 226_492_416 + 3_523_215_360  # 64 tokens
    assert counts["block_720p"] == 2_145_185_169_408 + 35_352_988_876_800 + 4_161_798_144_000  # 75 600 tokens


def test_bytes_are_counted_once_for_each_time_they_move(counts):
    made, added = 100 * 3 * 4, 100 * 3 * 4 + 3 * 4 + 100 * 3 * 4
    assert counts["moved"] == made + 3 * 4 + added


def test_a_hook_moves_at_least_its_tokens_and_clamping_moves_more(counts):
    read_and_written = 2 * 1536 * 2  # half precision
    assert read_and_written <= counts["add"] < counts["clamp"] < 20 * read_and_written


def test_the_predicted_ratio_is_the_hooks_seconds_over_the_blocks(counts):
    tokens = 21 * 45 * 80  # 81 frames of 1280 x 720
    hook = tokens * counts["add"] / (3.35e12 * 0.7)
    blocks = 30 * counts["block_720p"] / (990e12 * 0.5)
    assert counts["one"] == pytest.approx(1 + hook / blocks, abs=1e-5)
    assert counts["all"] == pytest.approx(1 + 30 * hook / blocks, abs=1e-5)
