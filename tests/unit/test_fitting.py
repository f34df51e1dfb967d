"""Directions against independent computations: scikit-learn, closed forms, and a dense Supervised PCA."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from safety_steering_pack.safety_steering.activations import SAFE, UNSAFE, Activations, Row, Source, States
from safety_steering_pack.safety_steering.directions.fitting import FitSettings, fit_states
from safety_steering_pack.safety_steering.directions.statistics import auc, held_out_auc
from safety_steering_pack.safety_steering.errors import SafetySteeringError
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import roc_auc_score


@pytest.fixture
def clouds():
    """Two classes (n, K=2, D=12) with unequal sizes, correlated channels and a known difference of means."""
    generator = torch.Generator().manual_seed(3)
    mixing = torch.randn(12, 12, generator=generator)
    unsafe = torch.randn(70, 2, 12, generator=generator) @ mixing
    safe = torch.randn(50, 2, 12, generator=generator) @ mixing + torch.linspace(-1, 2, 12)
    return unsafe, safe


def fit(unsafe, safe, **settings):
    """The direction of two classes (n, K, D), (m, K, D) without pairs; the safe states give its statistics."""
    rows = [Row("", UNSAFE, "x", split="train")] * len(unsafe) + [Row("", SAFE, "x", split="train")] * len(safe)
    both, edges = torch.cat([unsafe, safe]), torch.linspace(0, 1, unsafe.shape[1] + 1).tolist()
    found, _ = fit_states(rows, States(both, both), ("x",), FitSettings(**settings), space="s", sigma_edges=edges)
    return found.categories["x"]


def test_the_mean_difference_is_binary_supervised_pca(clouds):
    unsafe, safe = (cloud[:, 0].double().numpy() for cloud in clouds)
    x = np.concatenate([unsafe, safe]).T
    labels = np.r_[np.zeros(len(unsafe)), np.ones(len(safe))]
    kernel = (labels[:, None] == labels[None]).astype(float)  # the delta kernel
    centring = np.eye(x.shape[1]) - 1 / x.shape[1]
    _, vectors = np.linalg.eigh(x @ centring @ kernel @ centring @ x.T)
    fitted = fit(*clouds).direction[0].double().numpy()
    assert abs(vectors[:, -1] @ fitted) == pytest.approx(1, abs=1e-6)  # the file's float32 limits this


def test_statistics_are_those_of_the_clouds(clouds):
    unsafe, safe = clouds
    fitted = fit(unsafe, safe)
    for k in range(2):
        u = fitted.direction[k].double()
        assert u.norm() == pytest.approx(1, abs=1e-6)
        difference = (safe[:, k].double().mean(0) - unsafe[:, k].double().mean(0)) @ u
        assert float(fitted.gap[k]) == pytest.approx(float(difference), rel=1e-5)
        assert fitted.gap[k] > 0
        assert float(fitted.center[k]) == pytest.approx(float((safe[:, k].double() @ u).mean()), rel=1e-4)
        assert float(fitted.std_token[k]) == pytest.approx(float((safe[:, k].double() @ u).std()), rel=1e-4)


def test_shrunk_lda_without_shrinkage_is_lda(clouds):
    unsafe, safe = clouds
    fitted = fit(unsafe, safe, method="shrunk_lda", shrinkage=1e-9)
    x = torch.cat([unsafe, safe])[:, 1].double().numpy()
    lda = LinearDiscriminantAnalysis(solver="lsqr").fit(x, [0] * len(unsafe) + [1] * len(safe))
    reference = lda.coef_[0] / np.linalg.norm(lda.coef_[0])
    assert reference @ fitted.direction[1].double().numpy() == pytest.approx(1, abs=1e-5)


def test_auc_is_scikit_learns_with_ties():
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randint(0, 6, (40,), generator=generator), torch.randint(1, 7, (30,), generator=generator)
    assert auc(a, b) == pytest.approx(roc_auc_score([1] * 40 + [0] * 30, torch.cat([a, b])))
    assert math.isnan(auc(a, b[:0]))
    assert math.isnan(auc(a[:0], b))


def test_equal_means_have_no_direction():
    same = torch.ones(5, 1, 4)
    with pytest.raises(SafetySteeringError, match="no direction"):
        fit(same, same)


def test_a_bin_that_was_never_seen_is_named():
    states = torch.randn(6, 2, 4)
    states[:, 1] = torch.nan
    with pytest.raises(SafetySteeringError, match="Sigma bin 1 has 0 unsafe"):
        fit(states, states + 1)


@pytest.fixture
def activations(tmp_path):
    """Two categories along different axes, as twins that share a large nuisance offset, in several shards."""
    folder = Activations.create(tmp_path / "a", Source({"conditioning": ("space", 8)}, (0.0, 1.0)))
    generator = torch.Generator().manual_seed(5)
    for split in ("train", "validation"):
        for axis, category in enumerate(("gore", "drugs")):
            nuisance = 5 * torch.randn(40, 1, 8, generator=generator)
            shift = torch.zeros(8)
            shift[axis] = 2.0
            for label, states in ((SAFE, nuisance), (UNSAFE, nuisance - shift)):
                rows = [
                    Row(f"{split}-{category}-{label}-{i}", label, category, f"{category}{i}", split) for i in range(40)
                ]
                folder.append(rows, {"conditioning": States(states, states)})
    return Activations.open(tmp_path / "a")


def fit_conditioning(activations, categories, whole=""):
    rows, states = activations.rows(), activations.read("conditioning")
    return fit_states(rows, states, categories, FitSettings(), space="s", sigma_edges=(0.0, 1.0), whole=whole)[0]


def test_twins_cancel_what_they_share(activations):
    point = fit_conditioning(activations, ("gore", "drugs"), whole="all")
    assert list(point.categories) == ["gore", "drugs", "all"]
    for axis, category in enumerate(("gore", "drugs")):
        fitted = point.categories[category]
        assert float(fitted.direction[0, axis]) == pytest.approx(1, abs=1e-4)
        assert float(fitted.gap[0]) == pytest.approx(2, rel=1e-4)
    assert float(point.categories["all"].direction[0, :2].sum()) == pytest.approx(2**0.5, abs=1e-4)


def test_the_auc_is_of_the_split_it_is_asked_for(activations):
    point = fit_conditioning(activations, ("gore",))
    rows, states = activations.rows(), activations.read("conditioning")
    chosen = [
        i for i, row in enumerate(rows) if row.split == "validation" and (row.label == SAFE or row.category == "gore")
    ]
    projected = states.pooled[chosen, 0].double() @ point.categories["gore"].direction[0].double()
    expected = roc_auc_score([rows[i].label == SAFE for i in chosen], projected)
    assert held_out_auc(rows, states, point)["gore"] == [pytest.approx(expected)]
