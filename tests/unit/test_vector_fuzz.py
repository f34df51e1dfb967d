"""The loader against damaged and hostile files: a VectorFileError or a usable vector, soon, and in little memory."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from damage import MUTATIONS, flip_bytes, join, split
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from safety_steering_pack.safety_steering.errors import VectorFileError
from safety_steering_pack.safety_steering.vectors.card import describe
from safety_steering_pack.safety_steering.vectors.file import load_vector, read_label, save_vector
from safety_steering_pack.safety_steering.vectors.vector import Anchors, SafetyVector
from tiny.vectors import random_vector

CASES = 2000
SECONDS = 5.0  # of hanging, not of being slow: it takes milliseconds
GROWTH = 10
# What reading any file costs, however small: Python's own objects, and error messages with their tracebacks.
BASE_BYTES = 256 * 1024
# And what the memory allocators of Python, torch and the parser take at a time.
BASE_RESIDENT_BYTES = 8 * 1024 * 1024
MESSAGE_LENGTH = 600


def _seed_vector() -> SafetyVector:
    vector = random_vector(
        {"conditioning": ("umt5xxl.last", 8), "block.blocks.2.image": ("tiny/2", 6)},
        categories=("violence", "gore"),
        family="wan",
        block_counts={"blocks": 4},
        sigma_edges=(0.0, 0.5, 1.0),
    )
    anchors = Anchors(
        "conditioning",
        ("a dog", "a hill", "ein Zug"),
        torch.randn(3, 8, generator=torch.Generator().manual_seed(1)),
    )
    return SafetyVector(vector.hook_points, vector.info, anchors=anchors)


def check_usable(vector: SafetyVector, path: Path) -> None:
    """Whatever loads can be shown, hashed, and saved so that it loads as the same."""
    describe(vector).encode()
    again = path.with_name("again.safetensors")
    save_vector(vector, again)
    assert load_vector(again).sha256 == vector.sha256


def check_refusal(error: VectorFileError, path: Path) -> None:
    message = str(error)
    message.encode()
    assert message.startswith(path.name)
    assert len(message) < MESSAGE_LENGTH, message[:1000]


def attempt(path: Path, read: Callable[[Path], Any]) -> Any:
    """The result of reading `path`, or the VectorFileError; any other exception goes through."""
    try:
        return read(path)
    except VectorFileError as error:
        return error


def test_mutated_files_are_refused_in_one_sentence_or_load_as_usable_vectors(tmp_path, request):
    path = tmp_path / "mutated.safetensors"
    good = save_vector(_seed_vector(), tmp_path / "good.safetensors").read_bytes()
    request.addfinalizer(tracemalloc.stop)
    outcomes: Counter[tuple[str, str]] = Counter()

    # the same files in each run: a surprise belongs to the change that brought it
    @settings(max_examples=CASES, deadline=None, derandomize=True, database=None)
    @given(st.sampled_from(MUTATIONS), st.randoms(use_true_random=False), st.sampled_from([False] * 4 + [True]))
    def check(mutate, rng, twice):
        data = mutate(rng, good)
        if twice and data:
            data = flip_bytes(rng, data)
        path.write_bytes(data)
        tracemalloc.start()
        started = time.perf_counter()
        result, label = attempt(path, load_vector), attempt(path, read_label)
        seconds, peak = time.perf_counter() - started, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert seconds < SECONDS
        assert peak < GROWTH * len(data) + BASE_BYTES
        for outcome in (result, label):
            if isinstance(outcome, VectorFileError):
                check_refusal(outcome, path)
        if isinstance(result, SafetyVector):
            check_usable(result, path)
        outcomes[mutate.__name__, "loaded" if isinstance(result, SafetyVector) else "refused"] += 1

    check()
    assert sum(outcomes.values()) >= CASES
    assert {name for name, outcome in outcomes if outcome == "refused"} == {mutate.__name__ for mutate in MUTATIONS}


def hostile_files() -> dict[str, bytes]:
    """Large files made to cost the loader far more than they weigh."""
    good = save({key: value.contiguous().clone() for key, value in _seed_vector().tensors().items()})
    header, body = split(good)
    metadata = {"format": "safety_vector", "format_version": "1", "kind": "native", "gap_kind": "measured"}
    metadata |= {"spaces": '{"conditioning": "umt5xxl.last"}', "categories": '["violence", "gore"]'}
    metadata["anchor_texts"] = '["a dog", "a hill", "ein Zug"]'

    def with_metadata(**changes: str) -> bytes:
        return join({"__metadata__": metadata | changes, **header}, body)

    def with_tensor(shape: list[int], dtype: str, size: int) -> bytes:
        extra = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + size]}
        return join({"__metadata__": metadata, **header, "unknown": extra}, body + bytes(size))

    many = 480_000
    long = "\U0001f600" + "a" * 4 * many  # one wide character makes all of it wide
    nothing = {f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [len(body)] * 2} for i in range(28_000)}
    names = json.dumps({f"{i:x}": 1 for i in range(45_000)})
    return {
        "empty lists": with_metadata(provenance="[" + "[]," * many + "[]]"),
        "empty lists, just allowed": with_metadata(provenance="[" + "[]," * 24_000 + "[]]"),
        "short numbers": with_metadata(anchor_texts="[" + "300," * many + "1]"),
        "many names": with_metadata(parameters=names),
        "a long text": with_metadata(licence=long),
        "a long JSON text": with_metadata(provenance=json.dumps([long], ensure_ascii=False)),
        "escapes": with_metadata(parameters=json.dumps({"a": "\u2028" * 250_000})),
        "a mebibyte of brackets": with_metadata(window="[" * 2**20),
        "many empty tensors": join({"__metadata__": metadata, **header, **nothing}, body),
        "a large unknown tensor": with_tensor([4 * many], "F32", 16 * many),
        "a large tensor of bytes": with_tensor([16 * many], "U8", 16 * many),
        "many categories": with_metadata(categories=json.dumps([f"c{i}" for i in range(90_000)])),
        "many hook points": with_metadata(spaces=json.dumps({f"source.{i}": "s" for i in range(40_000)})),
    }  # fmt: skip


# In a process of its own: the kernel's peak of resident memory sees what torch and the parser written in Rust allocate.
MEASURE = """
import json, os, sys, time
sys.path.insert(0, sys.argv[1])
import pack
pack.register()
from safety_steering_pack.safety_steering import VectorFileError, load_vector
from safety_steering_pack.safety_steering.vectors.file import read_label

def attempt(read, path):
    try:
        read(path)
        return "read"
    except VectorFileError as error:
        return str(error)

def resident(key):
    with open("/proc/self/status") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith(key))

def measure(path, read):
    with open("/proc/self/clear_refs", "w") as counters:
        counters.write("5")  # sets the peak back to what is resident now
    before, started = resident("VmRSS"), time.perf_counter()
    outcome = attempt(read, path)
    seconds = time.perf_counter() - started
    print(json.dumps([path, read.__name__, resident("VmHWM") - before, seconds, outcome]), flush=True)

attempt(load_vector, sys.argv[2])
for path in sys.argv[2:]:
    for read in (read_label, load_vector):
        child = os.fork()  # nothing that an earlier file left to be reused
        if child == 0:
            measure(path, read)
            os._exit(0)
        os.waitpid(child, 0)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measures memory through Linux's /proc")
def test_no_large_file_makes_the_loader_allocate_ten_times_its_size(repo_root, tmp_path):
    good = save_vector(_seed_vector(), tmp_path / "good.safetensors")
    sizes = {}
    for number, (name, data) in enumerate(hostile_files().items()):
        path = tmp_path / f"{number}.safetensors"
        path.write_bytes(data)
        sizes[str(path)] = (name, len(data))
    command = [sys.executable, "-c", MEASURE, str(repo_root / "tools"), str(good), *sizes]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout.splitlines()
    assert len(lines) == 2 * (len(sizes) + 1)
    measured = [json.loads(line) for line in lines]
    base = {reader: peak for _, reader, peak, _, _ in measured[:2]}  # a small good file: code paged in, and the like
    for path, reader, peak, seconds, outcome in measured[2:]:
        name, size = sizes[path]
        limit = GROWTH * size + BASE_RESIDENT_BYTES
        assert peak - base[reader] <= limit, (
            f"{reader} of {name}: {(peak - base[reader]) / size:.1f} times its {size} bytes ({outcome})"
        )
        assert seconds < SECONDS, f"{reader} of {name}: {seconds:.2f} s ({outcome})"
