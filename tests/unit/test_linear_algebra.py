"""The one shrunk solve against the formulas that it replaced, on made-up states and on a committed vector's anchors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safety_steering_pack.safety_steering.errors import SafetySteeringError
from safety_steering_pack.safety_steering.linear_algebra import shrunk_solve
from safety_steering_pack.safety_steering.vectors.file import load_vector

VECTOR = Path(__file__).resolve().parents[2] / "vectors" / "smollm2_135m_portable.safetensors"
# of a component of a unit direction: vectors and tables that were made by either formula come again within this, which
# is a hundredth of what the float32 of a vector file resolves
TOLERANCE = 1e-9


def dense(directions, centred, shrinkage):
    """(S + lambda I)^-1 d with the D x D covariance written out."""
    covariance = torch.cov(centred.T)
    ridge = shrinkage * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=torch.float64)
    return torch.linalg.solve(covariance + ridge, directions.T).T


def along_axes(directions, centred, shrinkage):
    """The same along the covariance's axes, and by lambda alone outside of them."""
    _, values, axes = torch.linalg.svd(centred, full_matrices=False)
    variances = values.square() / (len(centred) - 1)
    ridge = shrinkage * variances.sum() / centred.shape[1]
    inside = directions @ axes.T
    return (inside / (variances + ridge)) @ axes + (directions - inside @ axes) / ridge


@pytest.mark.parametrize("rows", [30, 200], ids=["dual", "primal"])
def test_it_solves_with_the_dense_scatter(rows):
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(rows, 60, generator=generator, dtype=torch.float64) * torch.arange(1, 61)
    directions = torch.randn(3, 60, generator=generator, dtype=torch.float64)
    centred = states - states.mean(dim=0)
    found = shrunk_solve(directions, centred, 0.7) * (
        rows - 1
    )  # of the scatter, which is rows - 1 times the covariance
    torch.testing.assert_close(found, dense(directions, centred, 0.7), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("formula", [dense, along_axes])
@pytest.mark.parametrize("shrinkage", [1e-3, 0.03, 1.0, 100.0])
@pytest.mark.parametrize("rows", [50, 575, 576, 1000])
def test_a_committed_vectors_directions_come_again(rows, shrinkage, formula):
    vector = load_vector(VECTOR)
    states = vector.anchors.states[:rows].double()
    centred = states - states.mean(dim=0)
    point = vector.at(vector.anchors.hook_point)
    directions = torch.stack([one.direction[0].double() for one in point.categories.values()])
    found, expected = (
        torch.nn.functional.normalize(solve(directions, centred, shrinkage), dim=1) for solve in (shrunk_solve, formula)
    )
    assert float((found - expected).abs().max()) < TOLERANCE


@pytest.mark.parametrize("rows", [5, 50])
def test_states_or_a_shrinkage_without_an_inverse_are_refused(rows):
    varied = torch.randn(rows, 8, generator=torch.Generator().manual_seed(0))
    for centred, shrinkage in (
        (torch.zeros(rows, 8), 1.0),
        (varied, 0.0),
        (varied, -1.0),
        (varied, float("inf")),
        (varied, float("nan")),
        (varied * torch.nan, 1.0),
    ):
        with pytest.raises(SafetySteeringError, match="cannot be inverted with shrinkage"):
            shrunk_solve(torch.ones(1, 8), centred, shrinkage)
