"""The four methods against what they claim to be, the report's numbers, and the rule for a poor fit."""

from __future__ import annotations

import pytest
import torch
from portable import TARGET, World
from safety_steering_pack.safety_steering.alignment.alignment import AnchorStates
from safety_steering_pack.safety_steering.alignment.fit import fit_alignment
from safety_steering_pack.safety_steering.alignment.linear import fit_orthogonal, fit_reduced_rank, fit_ridge
from safety_steering_pack.safety_steering.alignment.maps import METHODS, AlignmentSettings, SpaceMap
from safety_steering_pack.safety_steering.alignment.mlp import fit_mlp
from safety_steering_pack.safety_steering.alignment.quality import judge
from safety_steering_pack.safety_steering.alignment.report import describe_alignment, draw_alignment
from safety_steering_pack.safety_steering.errors import SafetySteeringError
from safety_steering_pack.safety_steering.linear_algebra import spectrum


def normals(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def centred(x):
    return x - x.mean(dim=0)


def random_rotation(size, seed=0):
    return torch.linalg.qr(normals(size, size, seed=seed)).Q


@pytest.mark.parametrize("shape", [(30, 7), (7, 30), (8, 8)])
def test_a_spectrum_from_the_smaller_gram_matrix_is_that_of_the_svd(shape):
    x = centred(normals(*shape))
    found, (u, s, vh) = spectrum(x), torch.linalg.svd(x, full_matrices=False)
    rank = min(shape[0] - 1, shape[1])
    assert len(found.squares) == rank
    torch.testing.assert_close(found.squares.sqrt(), s[:rank])
    torch.testing.assert_close(
        (found.left.T @ u[:, :rank]).abs(), torch.eye(rank, dtype=torch.float64), atol=1e-7, rtol=0
    )
    torch.testing.assert_close(
        (found.right.T @ vh[:rank].T).abs(), torch.eye(rank, dtype=torch.float64), atol=1e-7, rtol=0
    )


@pytest.mark.parametrize("shape", [(60, 9), (20, 50)], ids=["primal", "dual"])
def test_ridge_is_the_closed_form_and_its_penalty_the_best_of_gcv(shape):
    x = centred(normals(*shape))
    y = centred(x @ normals(shape[1], 5, seed=1) + 3 * normals(shape[0], 5, seed=2))
    fitted = fit_ridge(x, y)
    penalty = fitted.chosen["penalty"]
    plain = torch.linalg.solve(x.T @ x + penalty * torch.eye(shape[1], dtype=torch.float64), x.T @ y)
    torch.testing.assert_close(fitted.tensors["matrix"].double(), plain, rtol=1e-5, atol=1e-6)

    def gcv(value):
        hat = x @ torch.linalg.solve(x.T @ x + value * torch.eye(shape[1], dtype=torch.float64), x.T)
        residual = (y - hat @ y).square().sum() / len(x)
        return float(residual / (1 - (1 + hat.trace()) / len(x)) ** 2)

    assert all(gcv(penalty) <= gcv(penalty * factor) for factor in (0.5, 2.0))


@pytest.mark.parametrize(("rows", "widths"), [(80, (6, 6)), (80, (6, 11)), (80, (11, 6)), (10, (30, 40))])
def test_orthogonal_is_procrustes_in_both_forms(rows, widths):
    x, y = centred(normals(rows, widths[0])), centred(normals(rows, widths[1], seed=3))
    a, s, b = torch.linalg.svd(x.T @ y, full_matrices=False)
    kept = s > 1e-8 * s[0]
    expected = float(s.sum() / x.square().sum()) * (a[:, kept] @ b[kept])
    fitted = fit_orthogonal(x, y)
    torch.testing.assert_close(fitted.tensors["matrix"].double(), expected, rtol=1e-4, atol=1e-6)
    assert fitted.chosen["axes"] == int(kept.sum())


def test_orthogonal_finds_a_rotation_and_its_scale():
    x, rotation = centred(normals(50, 8)), random_rotation(8)
    fitted = fit_orthogonal(x, 2.5 * x @ rotation)
    torch.testing.assert_close(fitted.tensors["matrix"].double(), 2.5 * rotation, rtol=1e-5, atol=1e-6)


def test_reduced_rank_is_ridge_on_the_best_axes():
    x = centred(normals(200, 20))
    low = normals(20, 3, seed=1) @ normals(3, 15, seed=2)
    y = centred(x @ low + 2 * normals(200, 15, seed=3))
    full, three = fit_ridge(x, y), fit_reduced_rank(x, y, rank=3)
    assert int(torch.linalg.matrix_rank(three.tensors["matrix"].double(), rtol=1e-5)) == 3
    every = fit_reduced_rank(x, y, rank=15)
    torch.testing.assert_close(every.tensors["matrix"], full.tensors["matrix"], rtol=1e-4, atol=1e-6)
    chosen = fit_reduced_rank(x, y)
    assert 2 <= chosen.chosen["rank"] <= 5  # it is 3, and a few axes of noise cost little
    errors = [(found.tensors["matrix"].double() - low).norm() for found in (three, full)]
    assert errors[0] < errors[1]


def test_the_mlp_is_seeded_learns_what_no_line_can_and_runs_under_inference_mode():
    x = centred(normals(400, 4))
    y = centred(torch.stack([x[:, 0].abs(), x[:, 1] ** 2, x[:, 2], x[:, 3]], dim=1))
    with torch.inference_mode():
        one, two = fit_mlp(x, y, hidden=32), fit_mlp(x, y, hidden=32)
    assert all(torch.equal(one.tensors[name], two.tensors[name]) for name in one.tensors)
    other = fit_mlp(x[:60], y[:60], hidden=32, seed=1)
    assert not torch.equal(one.tensors["first"], other.tensors["first"])

    def error(found):
        return float((found(x) - y).square().mean())

    assert error(one) < 0.5 * error(fit_ridge(x, y))


def test_an_interrupt_ends_the_training():
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_mlp(normals(40, 4), normals(40, 4), hidden=4, tick=stop)


@pytest.mark.parametrize("method", METHODS)
def test_a_shared_meaning_is_found_and_a_shuffled_one_called_poor(method):
    world = World()
    facts = world.facts(200)
    source, target = world.source(facts), world.target(facts)
    fitted = fit_alignment(source, target, method)
    assert fitted.quality.held_out == 40
    assert fitted.quality.retrieval > 0.9
    assert not fitted.quality.complaint
    assert 0 < fitted.quality.r2 <= 1
    shuffled = [
        fit_alignment(source, target[torch.randperm(200, generator=torch.Generator().manual_seed(seed))], method)
        for seed in range(20 if method != "mlp" else 2)
    ]
    assert all(one.quality.complaint for one in shuffled)
    assert max(one.quality.r2 for one in shuffled) < 0.05
    assert "too poor to trust" in describe_alignment(shuffled[0])
    assert "too poor to trust" not in describe_alignment(fitted)


def test_beta_is_the_ratio_of_median_norms():
    world = World()
    facts = world.facts(120)
    source, target = world.source(facts), world.target(facts)
    medians = [float((x - x.mean(dim=0)).double().norm(dim=1).median()) for x in (source, target)]
    assert fit_alignment(source, target).beta == pytest.approx(medians[1] / medians[0], rel=1e-6)


def test_an_outlier_channel_does_not_drown_the_rest():
    world = World()
    facts = world.facts(200)
    source, target = world.source(facts), world.target(facts)
    plain = fit_alignment(source, target, "orthogonal").quality.retrieval
    for states in (source, target):
        states[:, 0] = 500 * torch.randn(200, generator=torch.Generator().manual_seed(9))
    assert fit_alignment(source, target, "orthogonal").quality.retrieval > plain - 0.1


def test_quality_by_hand():
    true = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    predicted = torch.tensor([[1.0, 0.1], [1.0, 0.2], [-2.0, 0.0]])
    quality = judge(predicted, true, fitted=5)
    assert quality.r2 == pytest.approx(1 - (0.01 + 1 + 0.64 + 1) / 3)
    assert quality.retrieval == pytest.approx(2 / 3)
    assert quality.needed == 1.0  # three anchors cannot tell a good map from luck
    assert "67% of the held-out captions" in quality.complaint


def test_a_direction_is_a_difference_and_no_offset_leaks_in():
    tensors = {
        "first": torch.eye(3),
        "first_bias": torch.tensor([0.3, -0.2, 0.1]),
        "second": torch.eye(3),
        "second_bias": torch.full((3,), 7.0),
    }
    world = World(source=3, target=3)
    facts = world.facts(60)
    fitted = fit_alignment(world.source(facts), world.target(facts), "mlp")
    object.__setattr__(fitted, "map", SpaceMap("mlp", tensors))
    assert torch.equal(fitted.carry(torch.zeros(1, 3)), torch.zeros(1, 3, dtype=torch.float64))
    v = torch.tensor([[2.0, 0.0, 0.0]])
    z = v.double() / fitted.source_scale.double()
    bias = tensors["first_bias"].double()
    gelu = torch.nn.functional.gelu
    expected = (gelu(z + bias) - gelu(bias)) * fitted.target_scale.double()
    torch.testing.assert_close(fitted.carry(v), expected)


def test_what_cannot_be_fitted_is_said():
    world = World()
    facts = world.facts(40)
    source, target = world.source(facts), world.target(facts)
    broken = target.clone()
    broken[3, 3] = torch.nan
    for args, message in (
        ((source[:10], target[:10]), "10 anchors are too few"),
        ((source[:30], target), "do not belong together"),
        ((source, broken), "NaN or infinite"),
        ((torch.ones_like(source), target), "the same state"),
        ((source, AnchorStates(target, target[:, :5])), "do not belong together"),
    ):
        with pytest.raises(SafetySteeringError, match=message):
            fit_alignment(*args)
    for settings in ({"method": "cca"}, {"held_out": 0.0}, {"held_out": 0.9}, {"hidden": 0}, {"rank": -1}):
        with pytest.raises(SafetySteeringError):
            AlignmentSettings(**settings)


def test_fewer_anchors_than_channels_is_said():
    world = World(source=64)
    facts = world.facts(40)
    fitted = fit_alignment(world.source(facts), world.target(facts), "orthogonal")
    assert fitted.undetermined
    assert "40 anchors for 64 source channels" in describe_alignment(fitted)


def test_the_chart_shows_dots_for_both_kinds():
    world = World(noise=4.0)
    facts = world.facts(200)
    picture = draw_alignment(fit_alignment(world.source(facts), world.target(facts)))
    assert picture.ndim == 3
    assert picture.shape[2] == 3
    assert len(picture) > TARGET
    assert picture.std() > 5
