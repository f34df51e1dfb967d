"""A direction carried over: where it ends, what is measured on benign anchors, and what is refused."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from portable import SPACE, TARGET, World
from safety_steering_pack.safety_steering.alignment.alignment import AnchorStates, Side
from safety_steering_pack.safety_steering.alignment.fit import fit_alignment
from safety_steering_pack.safety_steering.alignment.maps import METHODS, AlignmentSettings
from safety_steering_pack.safety_steering.alignment.quality import Quality
from safety_steering_pack.safety_steering.alignment.report import describe_alignment, report_alignment
from safety_steering_pack.safety_steering.alignment.transfer import fit_step, transfer
from safety_steering_pack.safety_steering.errors import MismatchError, SafetySteeringError
from safety_steering_pack.safety_steering.vectors.file import load_vector, save_vector

SIDES = {
    "source_side": Side("source.3", SPACE, name="tinylm"),
    "target_side": Side("conditioning", "umt5xxl.last", name="wan2.1-1.3b"),
}


def carried(method="ridge", anchors=300, seed=0, **changes):
    world = World(seed)
    facts = world.facts(anchors)
    vector = world.vector(facts=facts)
    pooled = world.target(facts)
    token = pooled + torch.randn(pooled.shape, generator=world.generator)
    alignment = fit_alignment(vector.anchors.states, AnchorStates(pooled, token), method, **{**SIDES, **changes})
    return world, vector, alignment


@pytest.mark.parametrize("method", METHODS)
def test_the_direction_is_the_targets_own_though_it_never_saw_anything_unsafe(method):
    world, vector, alignment = carried(AlignmentSettings(method, hidden=64))
    point = transfer(vector, alignment).at("conditioning")
    for name, direction in point.categories.items():
        true = world.direction(name, world.to_target)
        cosine = float(direction.direction[0].double() @ true / true.norm())
        assert cosine > (0.9 if method != "orthogonal" else 0.5)  # the two worlds differ by more than a rotation
        unsafe, benign = world.target(world.facts(200, name)), world.target(world.facts(200))
        u = direction.direction[0]
        assert float(((benign @ u)[:, None] > (unsafe @ u)[None]).float().mean()) > 0.95


def test_gap_and_statistics():
    _, vector, alignment = carried()
    point = transfer(vector, alignment).at("conditioning")
    for name, direction in point.categories.items():
        u = direction.direction[0].double()
        assert float(u.norm()) == pytest.approx(1, abs=1e-6)
        gap = float(vector.at("source.3").categories[name].gap)
        assert float(direction.gap) == pytest.approx(alignment.beta * gap, rel=1e-5)
        pooled, token = (t.double() @ u for t in (alignment.target_anchors.pooled, alignment.target_anchors.token))
        for found, expected in (
            (direction.center, pooled.mean()),
            (direction.std_pooled, pooled.std()),
            (direction.std_token, token.std()),
        ):
            assert float(found) == pytest.approx(float(expected), rel=1e-4)
    assert float(point.token_norm) == pytest.approx(
        float(alignment.target_anchors.token.norm(dim=1).median()), rel=1e-5
    )


def test_it_says_where_it_comes_from(tmp_path):
    _, vector, alignment = carried()
    found = load_vector(save_vector(transfer(vector, alignment), tmp_path / "v.safetensors"))
    info = found.info
    assert (info.kind, info.gap_kind, info.validated_on, info.licence) == ("transferred", "estimated", (), "CC0-1.0")
    assert found.at("conditioning").space == "umt5xxl.last"
    assert dict(found.mix) == {"violence": 1.0, "illegal": 0.5}
    assert info.provenance[0] == {"step": "extract"}
    step = fit_step(found)
    assert step["source_sha256"] == vector.sha256
    assert step["alignment_sha256"] == alignment.sha256
    assert (step["from"], step["to"], step["anchors"]) == (SPACE, "umt5xxl.last", 300)
    assert step["r2"] == pytest.approx(alignment.quality.r2)
    assert set(step["outlier_share"]) == {"violence", "illegal"}
    assert info.family == info.model_name == info.weight_fingerprint == ""  # the space decides, not the model
    assert fit_step(vector) is None


def test_a_carried_block_vector_names_its_model():
    side = Side("block.blocks.1.image", "tiny/block.blocks.1.image", "tiny", "wan", "f00", {"blocks": 4})
    _, vector, alignment = carried(target_side=side)
    info = transfer(vector, alignment).info
    assert (info.family, info.model_name, info.weight_fingerprint) == ("wan", "tiny", "f00")
    assert info.block_counts == {"blocks": 4}


def test_a_vector_inside_a_text_encoder_names_it():
    side = Side("encoder.12", "t5xxl/encoder.12", "t5xxl", weight_fingerprint="f00")
    _, vector, alignment = carried(target_side=side)
    vector = transfer(vector, alignment)
    assert tuple(vector.hook_points) == ("encoder.12",)
    assert vector.at("encoder.12").space == "t5xxl/encoder.12"
    assert (vector.info.model_name, vector.info.weight_fingerprint) == ("t5xxl", "f00")


def test_another_mix_gives_the_same_directions():
    _, vector, alignment = carried()
    mixed = transfer(vector.with_mix({"illegal": 2.0}), alignment)
    assert dict(mixed.mix) == {"illegal": 2.0}
    assert mixed.sha256 == transfer(vector, alignment).sha256


def test_mismatched_spaces_are_refused_by_name():
    _, vector, alignment = carried()
    other = dataclasses.replace(alignment, source=Side("source.3", "biglm/source.3"))
    with pytest.raises(MismatchError, match=r"lives in tinylm/source.3; the alignment leads from biglm/source.3"):
        transfer(vector, other)
    with pytest.raises(MismatchError, match="This vector is transferred"):
        transfer(transfer(vector, alignment), alignment)
    narrow = World(source=12)
    with pytest.raises(MismatchError, match="12 wide and the alignment 24"):
        transfer(narrow.vector(), alignment)


def test_a_direction_without_length_is_refused():
    _, vector, alignment = carried()
    still = dataclasses.replace(
        alignment, map=dataclasses.replace(alignment.map, tensors={"matrix": torch.zeros(24, TARGET)})
    )
    with pytest.raises(SafetySteeringError, match="'violence' cannot be carried over"):
        transfer(vector, still)


@pytest.mark.parametrize(
    ("r2", "recognised", "words"),
    [
        (0.5, 93, "Good fit: 93% of kept-aside captions recognised."),
        (0.5, 60, "Fair fit: 60% of kept-aside captions recognised. More captions, of more kinds, make it better."),
        (
            0.5,
            9,
            "Poor fit, too poor to trust: only 9% of the held-out captions were recognised, 10% needed. Use more ",
        ),
        (0.01, 93, "Poor fit, too poor to trust: R2 0.010 is below 0.05. Use more anchors or another target."),
    ],
)
def test_the_report_begins_with_a_verdict_and_ends_with_a_short_hash(r2, recognised, words):
    _, vector, alignment = carried()
    own = torch.ones(100)
    own[recognised:] = -1
    judged = dataclasses.replace(alignment, quality=Quality(r2, own, torch.zeros(100), 400))
    for report in (report_alignment(judged, vector), describe_alignment(judged)):
        lines = report.splitlines()
        assert lines[0].startswith(words)
        assert lines[1].startswith(
            "No harmless prompts of your own: in your style the gate may never open. Connect some"
        )
        assert lines[-1] == f"sha256: {judged.sha256[:12]}"
    mine = dataclasses.replace(judged, own_benign=alignment.target_anchors)
    rows = len(alignment.target_anchors.pooled)
    assert describe_alignment(mine).splitlines()[1].endswith(f"threshold: from {rows} harmless prompts of your own")


def test_the_report_shows_every_category():
    _, vector, alignment = carried()
    report = report_alignment(alignment, vector)
    for part in ("R2", "retrieval@1", "beta", "violence: top-3-channel share", "illegal: top-3-channel share"):
        assert part in report
