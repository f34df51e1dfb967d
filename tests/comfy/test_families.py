"""Every family of the model map, on tiny models of ComfyUI's own classes, through its own sampling.

The table is `family_cases`: one row per family and task, with the tokens that may move written down by hand. The checks
(a) to (g) are written once. What goes in and out of a block is seen by hooks that know nothing of the pack: one runs
before the pack's hooks, one after them.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from exact_moves import check_moved
from family_cases import CASES
from family_cases.harness import GAP, STRENGTH, Family, check_blocks, flat, skip_unless_core_has, watched
from family_cases.runs import count_hooks, run, streams_of
from tiny.vectors import random_vector


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES)
def family(request: pytest.FixtureRequest, comfy_in_process: Any) -> Family:
    skip_unless_core_has(request.param, comfy_in_process.tree)
    return Family(request.param)


def test_every_row_of_the_map_has_a_case(comfy_in_process):
    from safety_steering_pack.bridge.models.families import FAMILIES

    assert {row.name for row in FAMILIES} == {case.family for case in CASES.values()}


def test_the_row_is_found_and_names_the_streams(family):
    assert family.shape.family.name == family.case.family
    for kind, tokens in (("block", family.case.tokens), ("cross_attention", family.case.read_tokens)):
        found = [point for point in family.points if point.kind == kind]
        assert {f"{point.list}.{point.stream}" for point in found} == set(tokens)


def test_the_header_alone_tells_family_lists_and_widths(family):
    from safety_steering_pack.bridge.models.checkpoint import recognise
    from safety_steering_pack.bridge.models.families import FAMILIES

    shapes = {f"model.diffusion_model.{name}": tuple(t.shape) for name, t in family.model.state_dict().items()}
    found = recognise(shapes, FAMILIES)
    assert found is not None
    same_tensors = {"wan-ar": "wan"}
    assert found.family == same_tensors.get(family.case.family, family.case.family)
    assert found.width == family.shape.width
    takes_states = "conditioning" in family.shape.family.states
    assert found.states == (family.case.states_width if takes_states else 0)
    assert family.shape.block_counts.items() <= found.block_counts.items()
    for stream, width in found.widths.items():
        assert width == next(w for point, w in family.shape.widths.items() if point.endswith(f".{stream}"))


def test_a_b_every_block_is_hit_once_and_moves_exactly_its_editable_tokens(family):
    check_blocks(family)


@pytest.mark.parametrize("name", CASES)
def test_b_in_half_precision(comfy_in_process, name):
    skip_unless_core_has(CASES[name], comfy_in_process.tree)
    check_blocks(Family(CASES[name], torch.bfloat16))


def test_what_a_block_reads_depends_on_the_prompt(family):
    """Up to the first block that reads, the image knows nothing of the text: what is read there, differs by it."""
    reads = [point for point in family.points if point.kind == "cross_attention"]
    if not reads:
        assert family.case.family == "svd"  # it reads an image
        return
    block, points = next((block, points) for block, points in family.blocks().items() if reads[0] in points)
    with watched(family) as (seen, _):
        for prompts in ((1, 2), (2, 1)):
            run(family.case, family.patcher, cfg=1.0, prompts=prompts)
    (streams,) = streams_of(family.case, points)
    one, other = (streams.sequence(before) for before, _ in seen[block])
    rows = streams.rows(points[0], one.shape[1])
    assert not torch.equal(one[:, rows], other[:, rows])


def test_c_a_capture_is_the_mean_over_the_editable_tokens(family):
    from safety_steering_pack.bridge.capture.collect import Capture, capture_source

    capture = Capture(capture_source(family.patcher, family.points, (0.0, 1.0), family.case.states_width))
    with watched(family) as (seen, _):
        run(family.case, capture.attach(family.patcher), cfg=1.0)
    for block, points in family.blocks().items():
        for streams in streams_of(family.case, points):
            outputs = torch.stack([streams.sequence(before).double() for before, _ in seen[block]])
            for point in streams.points:
                mean = outputs[:, :, streams.rows(point, outputs.shape[2])].mean(dim=2).mean(dim=0)
                pooled = capture.states[point].pooled[:, 0].double()
                torch.testing.assert_close(pooled, mean, rtol=1e-5, atol=1e-5)


def test_d_strength_0_is_bit_identical(family):
    plain = run(family.case, family.patcher)
    assert torch.equal(run(family.case, family.steered(family.points, strength=0.0)), plain)
    assert not torch.equal(run(family.case, family.steered(family.points)), plain)


def test_e_an_exception_leaves_no_hook(family):
    def fail(module: Any, inputs: Any, output: Any) -> None:
        raise RuntimeError("the block fails")

    hooks = count_hooks(family.model)
    handle = list(family.blocks())[-1].register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="the block fails"):
        run(family.case, family.steered(family.points))
    handle.remove()
    assert count_hooks(family.model) == hooks


def test_f_a_vector_for_another_model_is_refused(family):
    from safety_steering_pack.safety_steering.errors import MismatchError

    point = family.points[0]
    space, width = family.vector.at(point).space, family.vector.at(point).width
    name, counts = family.shape.family.name, family.shape.block_counts
    for others in (
        random_vector({point: (space, width)}, family="other", block_counts=counts),
        random_vector({point: (space, width)}, family=name, block_counts={**counts, point.split(".")[1]: 99}),
        random_vector({point: (space, width + 1)}, family=name, block_counts=counts),
        random_vector({point: ("other/" + point, width)}, family=name, block_counts=counts),
        random_vector({"conditioning": ("other.last", family.case.states_width)}),
    ):
        with pytest.raises(MismatchError, match=r"Load a vector made for this model|take no states"):
            family.steered(tuple(others.hook_points), vector=others)


def test_g_conditioning_reaches_the_blocks_and_leaves_padding_alone(family):
    case, last = family.case, list(family.blocks())[-1]  # a UNet's first blocks see no text
    if "conditioning" not in family.shape.family.states:
        check_conditioning_is_refused(family)
        return
    with watched(family) as (plain_blocks, plain_calls):
        run(case, family.patcher)
    with watched(family) as (blocks, calls):
        run(case, family.steered(("conditioning",)))
    assert len(calls) == len(plain_calls)
    for plain, call in zip(plain_calls, calls, strict=True):
        before, after = (case.states_of(arguments) for arguments in (plain, call))
        check_moved(before[0], after[0], case.moved_states, STRENGTH * GAP * family.direction("conditioning"))
        assert torch.equal(before[1], after[1]), "another part of the argument moved"
    assert not torch.equal(*(flat(seen[last][0][1]) for seen in (plain_blocks, blocks)))


def check_conditioning_is_refused(family: Family) -> None:
    from safety_steering_pack.safety_steering.errors import MismatchError

    vector = random_vector({"conditioning": ("t5xxl.last", family.case.states_width)})
    with pytest.raises(MismatchError, match="take no states at the hook point 'conditioning'"):
        family.steered(("conditioning",), vector=vector)
