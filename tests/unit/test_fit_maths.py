"""The maths of a fit against dense solvers, closed forms, scikit-learn, and data whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from safety_steering_pack.safety_steering.activations import SAFE, UNSAFE, Row, States
from safety_steering_pack.safety_steering.directions.fitting import FitSettings, fit_states
from safety_steering_pack.safety_steering.directions.methods import (
    label_factor,
    logistic_probe,
    shrunk_lda,
    supervised_pca,
    without_length,
)
from safety_steering_pack.safety_steering.directions.rows import strata
from safety_steering_pack.safety_steering.directions.statistics import (
    agreement,
    contrast,
    half_contrasts,
    permutation_p_value,
)
from safety_steering_pack.safety_steering.errors import SafetySteeringError
from safety_steering_pack.safety_steering.linear_algebra import channel_scales, outlier_share


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dense_spca(x, kernel, components):
    """The leading eigenvectors of the D x D matrix X H L H X^T, everything written out."""
    x, kernel = x.numpy().T, kernel.numpy()
    centring = np.eye(x.shape[1]) - np.ones((x.shape[1], x.shape[1])) / x.shape[1]
    matrix = x @ centring @ kernel @ centring @ x.T
    _, vectors = scipy.linalg.eigh(matrix, subset_by_index=[len(matrix) - components, len(matrix) - 1])
    return vectors[:, ::-1]


def labelled(n, classes, width, seed):
    """States around well separated class means of different sizes, far from the origin, and a multi-label table."""
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(n, classes, generator=generator) < torch.linspace(0.15, 0.5, classes)).long()
    means = random(classes, width, seed=seed + 1) * torch.linspace(1, 3, classes)[:, None]
    return random(n, width, seed=seed + 2) + labels.double() @ means + 5.0, labels


@pytest.mark.parametrize("kernel", ["delta", "linear"])
@pytest.mark.parametrize("width", [30, 512])
def test_multi_label_supervised_pca_is_the_dense_solvers(kernel, width):
    x, labels = labelled(200, 4, width, seed=1)
    same = (labels[:, None] == labels[None]).all(-1).double()
    expected = dense_spca(x, same if kernel == "delta" else labels.double() @ labels.double().T, 3)
    found = supervised_pca(x, label_factor(labels, kernel), 3).numpy()
    assert np.abs((found * expected).sum(axis=0)) == pytest.approx(1, abs=1e-10)


def test_multi_class_supervised_pca_is_the_dense_solvers_and_ends_at_its_rank():
    labels = torch.nn.functional.one_hot(torch.arange(120) % 4)[:, 1:]  # safe rows are all zero
    x = random(120, 300) + labels.double() @ random(3, 300, seed=5)
    found = supervised_pca(x, label_factor(labels, "delta"))
    assert found.shape == (300, 3)  # C - 1 for the three categories and safe
    same = (labels[:, None] == labels[None]).all(-1).double()
    expected = dense_spca(x, same, 3)
    assert np.abs((found.numpy() * expected).sum(axis=0)) == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize("seed", range(5))
def test_binary_supervised_pca_is_the_mean_difference_for_any_label_kernel(seed):
    unsafe = torch.arange(90) < 35
    x = random(90, 64, seed=seed) + 2
    mean_difference = x[~unsafe].mean(0) - x[unsafe].mean(0)
    for kernel in ("delta", "linear"):
        assert_same_line(supervised_pca(x, label_factor(unsafe[:, None], kernel)), mean_difference)
    # any positive semi-definite kernel of two labels is (one-hot A)(one-hot A)^T
    any_factor = torch.nn.functional.one_hot(unsafe.long()).double() @ random(2, 2, seed=seed + 10)
    assert_same_line(supervised_pca(x, any_factor), mean_difference)
    assert_same_line(torch.from_numpy(dense_spca(x, any_factor @ any_factor.T, 1).copy()), mean_difference, 1e-10)


def assert_same_line(found, direction, tolerance=1e-12):
    assert found.shape == (len(direction), 1)
    assert abs(float(found[:, 0] @ direction / direction.norm())) == pytest.approx(1, abs=tolerance)


def test_labels_that_do_not_vary_have_no_direction():
    with pytest.raises(SafetySteeringError, match="no direction"):
        supervised_pca(random(10, 4), label_factor(torch.ones(10, 1), "linear"))


@pytest.mark.parametrize("width", [20, 200])
def test_shrunk_lda_solves_the_ridge_system_with_fewer_rows_than_channels_too(width):
    unsafe, safe, differences = random(40, width), random(50, width, seed=1) + 1, random(3, width, seed=2)
    scatter = np.cov(unsafe.numpy().T) * 39 + np.cov(safe.numpy().T) * 49
    ridge = 0.7 * np.trace(scatter) / width
    expected = np.linalg.solve(scatter + ridge * np.eye(width), differences.numpy().T).T
    found = shrunk_lda(differences, torch.cat([unsafe, safe]), torch.arange(90) < 40, 0.7)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-8, atol=1e-12)


def test_length_regression_takes_length_out_and_leaves_the_difference():
    generator = torch.Generator().manual_seed(4)
    unsafe = torch.arange(400) < 200
    lengths = torch.randint(5, 15, (400,), generator=generator).double() + 6 * unsafe  # unsafe prompts are longer
    effect, difference = random(16, seed=5), random(16, seed=6)
    x = lengths[:, None] * effect - unsafe[:, None] * difference + 0.01 * random(400, 16, seed=7)
    adjusted = without_length(x, lengths, unsafe)
    plain = x[~unsafe].mean(0) - x[unsafe].mean(0)
    found = adjusted[~unsafe].mean(0) - adjusted[unsafe].mean(0)
    assert torch.cosine_similarity(plain, difference, dim=0) < 0.9
    torch.testing.assert_close(found, difference, rtol=0, atol=0.02)
    with pytest.raises(SafetySteeringError, match="not known"):
        without_length(x, torch.zeros(400), unsafe)
    with pytest.raises(SafetySteeringError, match="same length"):
        without_length(x, 3 + 4.0 * unsafe, unsafe)


def test_standardising_is_the_diagonal_discriminant_and_silences_an_outlier():
    benign = random(500, 8) * torch.tensor([100.0, 1, 1, 1, 1, 1, 1, 1])
    scales = channel_scales(benign)
    torch.testing.assert_close(scales, benign.std(dim=0))
    shift = torch.tensor([5.0, 1, 1, 1, 0, 0, 0, 0])
    safe, unsafe = (benign + shift).float()[:, None], benign.float()[:, None]
    rows = rows_of(500, pairs=False)
    states = States(torch.cat([unsafe, safe]), torch.cat([unsafe, safe]))
    plain, remedied = (fit_one(rows, states, FitSettings(standardise=on)) for on in (False, True))
    expected = shift / channel_scales(safe[:, 0]) ** 2
    assert float(torch.cosine_similarity(remedied.double(), expected, dim=0)) == pytest.approx(1, abs=1e-6)
    assert outlier_share(plain) > 0.9
    assert float(plain[0] ** 2) > 0.8
    assert float(remedied[0] ** 2) < 1e-4
    assert outlier_share(torch.ones(300)) == pytest.approx(0.01)


def test_a_silent_channel_does_not_count_for_its_silence():
    assert channel_scales(torch.cat([random(50, 9), torch.zeros(50, 1)], dim=1))[9] > 0.05


def test_the_probe_is_scikit_learns_minimum_and_points_to_safe():
    unsafe, safe = random(40, 6), random(60, 6, seed=1) + torch.tensor([1.5, 0, 0, 0, 0, 0])
    w = logistic_probe(unsafe, safe, 0.5)
    assert w[0] > 0
    x = torch.cat([unsafe, safe])
    x = x - x.mean(0)
    x = x / x.square().mean().sqrt()
    signs = torch.cat([-torch.ones(40), torch.ones(60)]).double()
    # at the minimum of ||w||^2 / 2 + C sum log(1 + exp(-y (<w, x> + b))) the gradient is zero, with b from its own
    low, high = -20.0, 20.0
    for _ in range(80):
        b = (low + high) / 2
        slack = signs * torch.sigmoid(-signs * (x @ w + b))
        low, high = (b, high) if float(slack.sum()) > 0 else (low, b)
    assert (w - 0.5 * slack @ x).abs().max() < 0.02  # scikit-learn stops at 1e-4 of the mean loss


def rows_of(n, pairs, category="gore", split="train"):
    """n unsafe rows, then n safe ones."""
    return [
        Row(f"{label}{i}", label, category, f"pair{i}" if pairs else "", split)
        for label in (UNSAFE, SAFE)
        for i in range(n)
    ]


def fit_one(rows, states, settings):
    point, _ = fit_states(rows, states, ("gore",), settings, space="s", sigma_edges=(0.0, 1.0))
    return point.categories["gore"].direction[0]


def twins(n, width, shift, nuisance, seed=0):
    """States of n unsafe rows and their n safe twins, which share a nuisance of this size."""
    shared = nuisance * random(n, width, seed=seed)
    safe = shared + random(n, width, seed=seed + 1)
    unsafe = shared + random(n, width, seed=seed + 2)
    safe[:, 0] += shift
    return torch.cat([unsafe, safe])


def test_a_permutation_test_finds_what_twins_hide_and_only_that():
    unsafe = torch.arange(80) < 40
    pairs = strata([f"p{i % 40}" for i in range(80)])
    real, none = twins(40, 30, shift=2.0, nuisance=10.0), twins(40, 30, shift=0.0, nuisance=10.0)

    def p(x, groups):
        generator = torch.Generator().manual_seed(0)
        return permutation_p_value(x, unsafe, groups, torch.arange(80), repeats=199, generator=generator)

    assert p(real, pairs) == pytest.approx(1 / 200)
    assert p(none, pairs) > 0.05
    assert p(real, strata([""] * 80)) > 0.05  # without the pairs the nuisance drowns it


def test_permuted_labels_stay_within_their_pairs():
    # the pairs' own offsets cancel only while labels are exchanged within pairs
    x = torch.cat([torch.arange(10.0), torch.arange(10.0)])[:, None] * 1000
    x[10:] += 1
    groups = strata([f"p{i % 10}" for i in range(20)])
    generator = torch.Generator().manual_seed(1)
    unsafe, videos = torch.arange(20) < 10, torch.arange(20)
    value = permutation_p_value(x.double(), unsafe, groups, videos, repeats=500, generator=generator)
    assert value == pytest.approx(2 / 1024, abs=0.01)


def test_the_p_values_of_pure_noise_are_spread_evenly():
    unsafe, groups = torch.arange(40) < 20, strata([f"p{i % 20}" for i in range(40)])
    values = []
    for seed in range(100):
        generator = torch.Generator().manual_seed(seed)
        x = random(40, 5, seed=1000 + seed)
        values.append(permutation_p_value(x, unsafe, groups, torch.arange(40), repeats=99, generator=generator))
    assert 0.3 < np.mean(np.array(values) <= 0.5) < 0.7
    assert np.mean(np.array(values) <= 0.05) < 0.15


def test_halves_agree_where_there_is_a_direction_and_not_where_there_is_none():
    unsafe = torch.arange(200) < 100
    groups = strata([f"p{i % 100}" for i in range(200)])

    def confidence(shift):
        x = twins(100, 50, shift=shift, nuisance=3.0, seed=20)
        generator = torch.Generator().manual_seed(0)
        return agreement(half_contrasts(unsafe, groups, torch.arange(200), repeats=20, generator=generator) @ x)

    strong, none = confidence(10.0), confidence(0.0)
    assert strong.mean > 0.97
    assert strong.low <= strong.mean
    assert abs(none.mean) < 0.3


def test_halves_share_no_pair_and_no_row():
    unsafe = torch.arange(12) < 6
    groups = strata([f"p{i % 6}" if i % 6 < 3 else "" for i in range(12)])
    generator = torch.Generator().manual_seed(2)
    weights = half_contrasts(unsafe, groups, torch.arange(12), repeats=5, generator=generator)
    assert weights.shape == (10, 12)
    for first, second in zip(weights[0::2], weights[1::2], strict=True):
        assert not bool(((first != 0) & (second != 0)).any())
        assert bool(((first != 0) | (second != 0)).all())
        assert set(groups[first != 0].tolist()) & set(groups[second != 0].tolist()) <= {0}
        for half in (first, second):
            assert float(half[half > 0].sum()) == pytest.approx(1)
            assert float(half[half < 0].sum()) == pytest.approx(-1)


def test_the_frames_of_a_video_stay_together_and_have_one_label():
    unsafe = torch.arange(24) % 6 < 3  # videos of three frames, in turn unsafe and safe
    videos = torch.arange(24) // 3
    generator = torch.Generator().manual_seed(3)
    for groups in (strata([f"p{i // 6}" for i in range(24)]), strata([""] * 24)):
        for half in half_contrasts(unsafe, groups, videos, repeats=5, generator=generator):
            assert all(len(set((half[videos == video] != 0).tolist())) == 1 for video in range(8))


def test_frames_are_no_further_statistics():
    # each prompt once, or as ten frames that are all alike: the draws differ, what they say must not
    unsafe, groups = torch.arange(12) < 6, strata([f"p{i % 6}" for i in range(12)])
    x = twins(6, 5, shift=1.0, nuisance=1.0)
    generator = torch.Generator().manual_seed(4)
    once = permutation_p_value(x, unsafe, groups, torch.arange(12), repeats=999, generator=generator)
    frames = torch.arange(12).repeat_interleave(10)
    many = permutation_p_value(x[frames], unsafe[frames], groups[frames], frames, repeats=999, generator=generator)
    assert once > 0.02
    assert many == pytest.approx(once, abs=0.04)
    alone = torch.arange(120)
    apart = permutation_p_value(x[frames], unsafe[frames], groups[frames], alone, repeats=999, generator=generator)
    assert apart < once / 4  # what taking every frame for a prompt would claim


def test_contrast_weights_are_the_difference_of_means():
    x, unsafe = random(9, 4), torch.arange(9) % 3 == 0
    torch.testing.assert_close(contrast(unsafe) @ x, x[~unsafe].mean(0) - x[unsafe].mean(0))


@pytest.fixture
def two_categories():
    """Twins of two categories, whose differences share an axis and each have their own; some rows have both."""
    generator = torch.Generator().manual_seed(8)
    rows, states = [], []
    for i in range(90):
        category = ("gore", "drugs", "drugs, gore")[i % 3]
        safe = torch.randn(24, generator=generator)
        shift = torch.zeros(24)
        shift[0] = 3
        shift[1], shift[2] = 2.0 * ("gore" in category), 2.0 * ("drugs" in category)
        for label, state in ((SAFE, safe), (UNSAFE, safe - shift)):
            rows.append(Row(f"{i}{label}", label, category, f"pair{i}", "train"))
            states.append(state)
    stacked = torch.stack(states)[:, None]
    return rows, States(stacked, stacked)


def fit_both(two_categories, **settings):
    rows, states = two_categories
    options = {"space": "s", "sigma_edges": (0.0, 1.0), "whole": "all"}
    point, statistics = fit_states(rows, states, ("gore", "drugs"), FitSettings(**settings), **options)
    return {name: direction.direction[0] for name, direction in point.categories.items()}, statistics


def test_a_row_of_two_categories_counts_in_both(two_categories):
    found, statistics = fit_both(two_categories)
    assert [statistics[name][0].unsafe for name in found] == [60, 60, 90]
    assert [statistics[name][0].safe for name in found] == [60, 60, 90]
    assert found["gore"][1] > found["gore"][2] > 0


@pytest.mark.parametrize("labels", ["binary", "categories"])
@pytest.mark.parametrize("kernel", ["delta", "linear"])
def test_supervised_pca_projects_a_category_on_what_the_labels_share(two_categories, labels, kernel):
    rows, states = two_categories
    found, _ = fit_both(two_categories, method="supervised_pca", labels=labels, kernel=kernel)
    plain, _ = fit_both(two_categories)
    columns = [
        [row.label == UNSAFE and (labels == "binary" or name in row.category) for name in ("gore", "drugs")]
        for row in rows
    ]
    subspace = supervised_pca(states.pooled[:, 0], label_factor(torch.tensor(columns), kernel))
    for name, direction in found.items():
        expected = subspace @ subspace.T @ plain[name].double()
        assert float(torch.cosine_similarity(direction.double(), expected, dim=0)) == pytest.approx(1, abs=1e-6)
    if labels == "binary":
        assert float(found["gore"] @ found["drugs"]) == pytest.approx(1, abs=1e-6)


def test_one_component_is_one_direction_for_all(two_categories):
    found, _ = fit_both(two_categories, method="supervised_pca", components=1)
    assert float(found["gore"] @ found["drugs"]) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("method", ["mean_difference", "supervised_pca", "shrunk_lda", "logistic_probe"])
@pytest.mark.parametrize("standardise", [False, True])
def test_every_method_finds_a_plain_axis_and_says_how_sure_it_is(method, standardise):
    x = twins(60, 10, shift=4.0, nuisance=1.0).float()[:, None]
    settings = FitSettings(method=method, standardise=standardise, halves=3, permutations=50)
    rows = rows_of(60, pairs=True)
    point, statistics = fit_states(rows, States(x, x), ("gore",), settings, space="s", sigma_edges=(0.0, 1.0))
    direction = point.categories["gore"]
    assert direction.direction[0, 0] > 0.9
    assert direction.gap[0] > 0
    (one,) = statistics["gore"]
    assert one.confidence.mean > 0.8
    assert one.p_value == pytest.approx(1 / 51)


def test_a_method_that_is_none_is_named():
    with pytest.raises(SafetySteeringError, match="method is 'magic', expected one of mean_difference"):
        FitSettings(method="magic")
