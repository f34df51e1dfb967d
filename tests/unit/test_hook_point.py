"""Names of hook points, and which of a vector's hook points a user's words mean."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safety_steering_pack.safety_steering.errors import MismatchError, SafetySteeringError
from safety_steering_pack.safety_steering.hook_point import (
    CROSS_ATTENTION,
    STREAMS,
    HookPoint,
    depth,
    select_hook_points,
)

properties = settings(max_examples=100, deadline=None)  # no deadline: the machine may be busy

FLUX = {"double_blocks": 4, "single_blocks": 8}
BLOCKS = tuple(HookPoint(f"block.{name}.{index}.image") for name, count in FLUX.items() for index in range(count))
EVERY = (HookPoint("conditioning"), *BLOCKS)
READS = tuple(HookPoint(f"cross_attention.double_blocks.{index}.image") for index in range(4))

PARTS = st.tuples(
    st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,12}", fullmatch=True), st.integers(0, 9999), st.sampled_from(STREAMS)
)


@properties
@given(st.sampled_from(["block", CROSS_ATTENTION]), PARTS)
def test_a_hook_point_is_its_name_with_its_parts(kind, parts):
    name = "{}.{}.{}.{}".format(kind, *parts)
    point = HookPoint(name)
    assert (point.kind, point.list, point.number, point.stream) == (kind, *parts)
    assert (point.is_block, point.in_blocks) == (kind == "block", True)
    assert point == name
    assert {name: 1}[point] == 1
    assert str(point) == f"{point}" == json.loads(json.dumps(point)) == name
    for copied in (HookPoint(point), copy.deepcopy(point), pickle.loads(pickle.dumps(point))):
        assert (copied, copied.kind, copied.number) == (point, kind, parts[1])


def test_hook_points_that_are_no_block():
    assert [HookPoint(name).kind for name in ("conditioning", "clip_vision")] == ["conditioning", "clip_vision"]
    layer = HookPoint("source.12")
    assert (layer.kind, layer.number, layer.list, layer.in_blocks) == ("source", 12, "", False)
    inner = HookPoint("encoder.12")
    assert (inner.kind, inner.number, inner.list, inner.in_blocks) == ("encoder", 12, "", False)
    assert inner.in_encoder
    assert not layer.in_encoder


@pytest.mark.parametrize(
    "name", ["", "text", "block", "block.blocks.image", "block.blocks.-1.image", "block.blocks.1.depth", "source.x",
             "block.a/b.1.image", "source.1 ", "encoder", "encoder.0", "encoder.1.text",
             "cross_attention", "cross_attention.blocks.1",
             "block.blocks.01.image", "source.\u0661", "CONDITIONING", "block.blocks.12345.image"]
)  # fmt: skip
def test_another_name_is_refused(name):
    with pytest.raises(SafetySteeringError, match=r"is not a hook point. Expected 'conditioning'"):
        HookPoint(name)


def test_an_error_quotes_little_of_a_long_name():
    for refuse in (HookPoint, lambda name: select_hook_points(name, EVERY, FLUX)):
        with pytest.raises(SafetySteeringError) as raised:
            refuse("x" * 5000)
        assert len(str(raised.value)) < 300


def test_depth_runs_over_all_lists_in_order():
    depths = [depth(name, FLUX) for name in BLOCKS]
    assert depths == [index / 11 for index in range(12)]
    assert depth(HookPoint("block.blocks.0.image"), {"blocks": 1}) == 0
    with pytest.raises(MismatchError, match="no block list 'blocks'; it has double_blocks, single_blocks"):
        depth(HookPoint("block.blocks.0.image"), FLUX)


@pytest.mark.parametrize(
    ("text", "available", "suggested", "expected"),
    [
        ("auto", EVERY, (), ("conditioning",)),
        ("auto", EVERY, (BLOCKS[3], BLOCKS[1]), (BLOCKS[1], BLOCKS[3])),
        ("auto", BLOCKS[:6], (), (BLOCKS[5],)),
        ("auto", ("source.9",), (), ("source.9",)),
        ("all", EVERY, (), EVERY),
        ("0", EVERY, (), (BLOCKS[0],)),
        ("1", EVERY, (), (BLOCKS[11],)),
        (".3", EVERY, (), (BLOCKS[3],)),  # the last double block
        ("0.4", EVERY, (), (BLOCKS[4],)),  # the first single block
        ("0.5", (BLOCKS[0], BLOCKS[11]), (), (BLOCKS[0],)),  # of two as near: the first
        ("0.9, conditioning", EVERY, (), ("conditioning", BLOCKS[10])),
        (f" {BLOCKS[2]} ,{BLOCKS[0]},, 0 ", EVERY, (), (BLOCKS[0], BLOCKS[2])),
        ("auto, 1.0", EVERY, (), ("conditioning", BLOCKS[11])),
        ("auto", (*EVERY, *READS), (), ("conditioning",)),
        ("auto", READS, (), READS),
        ("auto", READS, READS[1:2], READS[1:2]),
        ("auto", (*BLOCKS[:6], *READS), (), (BLOCKS[5],)),
        ("cross_attention", (*EVERY, *READS), (), READS),
        ("cross_attention, conditioning", (*EVERY, *READS), (), ("conditioning", *READS)),
        (READS[2], (*EVERY, *READS), (), READS[2:3]),
        (".1", (*EVERY, *READS), (), (BLOCKS[1],)),  # a depth means a block's output
        (".1", READS, (), (READS[1],)),
        ("all", (*EVERY, *READS), (), (*EVERY, *READS)),
    ],
)
def test_what_a_choice_means(text, available, suggested, expected):
    assert select_hook_points(text, available, FLUX, suggested) == expected


@pytest.mark.parametrize(
    ("text", "available", "words"),
    [
        ("", EVERY, "No hook point was given"),
        (" , ", EVERY, "No hook point was given"),
        ("clip_vision", EVERY, "no hook point 'clip_vision'. It has: conditioning, .* and 7 more"),
        ("1.5", EVERY, "A depth .1.5. must lie between 0 and 1"),
        ("0.5", EVERY[:1], "needs a vector with block hook points"),
        ("-0.5", EVERY, "no hook point '-0.5'"),
        ("cross_attention", EVERY, "no hook point 'cross_attention'. It has: conditioning"),
        ("0.5", (HookPoint("cross_attention.transformer_blocks.1.image"),), "needs a vector with block hook points"),
    ],
)
def test_a_choice_that_means_nothing_is_refused(text, available, words):
    with pytest.raises(SafetySteeringError, match=words):
        select_hook_points(text, available, FLUX)


@properties
@given(st.floats(0, 1), st.sets(st.sampled_from(BLOCKS), min_size=1))
def test_a_fraction_finds_the_nearest_block_that_the_vector_has(fraction, available):
    (chosen,) = select_hook_points(f"{fraction:.6f}", sorted(available), FLUX)
    nearest = min(abs(depth(name, FLUX) - fraction) for name in available)
    assert abs(depth(chosen, FLUX) - fraction) == pytest.approx(nearest, abs=1e-5)
