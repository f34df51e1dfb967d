"""From a folder of activations to a native vector, its table and its chart."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safety_steering_pack.safety_steering.activations import SAFE, UNSAFE, Activations, Row, Source, States
from safety_steering_pack.safety_steering.directions.charts import draw_separability
from safety_steering_pack.safety_steering.directions.fitting import FitSettings
from safety_steering_pack.safety_steering.directions.merging import merged_bins, merged_edges
from safety_steering_pack.safety_steering.directions.native import fit_vector, gate_threshold
from safety_steering_pack.safety_steering.directions.statistics import auc
from safety_steering_pack.safety_steering.errors import SafetySteeringError
from safety_steering_pack.safety_steering.hook_point import select_hook_points
from safety_steering_pack.safety_steering.vectors.file import load_vector, save_vector
from safety_steering_pack.safety_steering.vectors.suggestion import NATIVE

BLOCKS = [f"block.blocks.{i}.image" for i in range(3)]
SETTINGS = FitSettings(halves=4, permutations=20, seed=1)


def build(folder, splits=("train", "validation"), pairs=20):
    """Twins of two categories in four sigma bins; the deeper the block, the further they are apart."""
    source = Source(
        {name: (f"tiny/{name}", 12) for name in BLOCKS}, (0.0, 0.3, 0.6, 0.8, 1.0), "wan", "tiny", "f00", {"blocks": 3}
    )
    activations = Activations.create(folder, source)
    generator = torch.Generator().manual_seed(2)
    rows = [
        Row(f"{split}-{i}-{label}", label, ("gore", "drugs")[i % 2], f"{split}{i}", split, length=5 + i % 3)
        for split in splits
        for i in range(pairs)
        for label in (UNSAFE, SAFE)
    ]
    states = {}
    for depth, name in enumerate(BLOCKS):
        pooled, token = (torch.randn(len(rows), 4, 12, generator=generator) for _ in range(2))
        pooled[0::2, :, 0] -= 0.5 + 2 * depth
        states[name] = States(pooled, token)
    activations.append(rows, states)
    return activations


@pytest.fixture
def activations(tmp_path):
    return build(tmp_path / "a")


def test_a_vector_says_what_it_is_and_comes_back_from_its_file(activations, tmp_path):
    seen = []
    fitted = fit_vector(activations, SETTINGS, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    again = load_vector(save_vector(fitted.vector, tmp_path / "v.safetensors"))
    assert again.sha256 == fitted.vector.sha256
    info = again.info
    assert (info.kind, info.gap_kind, info.family, info.weight_fingerprint) == ("native", "measured", "wan", "f00")
    assert again.categories == ("gore", "drugs", "all")
    assert dict(again.mix) == {"gore": 1.0, "drugs": 1.0}  # all of them together stays out of the mix
    assert info.counts == {name: {"unsafe": n, "safe": n} for name, n in (("gore", 10), ("drugs", 10), ("all", 20))}
    assert info.parameters["sigma_bins"] == 4
    assert info.provenance[0]["evidence_at"] == BLOCKS[1]
    middle = [row["auc"] for row in fitted.table if row["hook_point"] == BLOCKS[1] and row["category"] == "all"]
    assert info.validation_auc["all"] == pytest.approx(sum(middle) / 4)


def test_a_fit_suggests_the_family_default(activations):
    vector = fit_vector(activations, SETTINGS).vector
    found = vector.info.suggestion
    threshold = gate_threshold(vector, found.hook_points)
    assert found == replace(NATIVE, threshold=threshold, hook_points=found.hook_points, mix=dict(vector.mix))
    assert found.hook_points == tuple(select_hook_points("auto", vector.hook_points, vector.info.block_counts))


@pytest.mark.parametrize(("gap", "threshold"), [(5.0, -2.5), (20.0, NATIVE.threshold), (0.5, -1.0)])
def test_the_gate_opens_half_way_between_the_class_means(activations, gap, threshold):
    vector = fit_vector(activations, SETTINGS).vector
    name = vector.info.suggestion.hook_points[0]
    point = vector.at(name)
    categories = {
        category: replace(one, gap=gap * one.std_pooled * (1 if category == "gore" else 3))
        for category, one in point.categories.items()
    }
    changed = replace(vector, hook_points={name: replace(point, categories=categories)})
    assert gate_threshold(changed, (name,)) == pytest.approx(threshold)


def test_the_table_is_what_the_directions_do_on_validation(activations):
    fitted = fit_vector(activations, SETTINGS)
    assert len(fitted.table) == 3 * 3 * 4
    rows, states = activations.rows(), activations.read(BLOCKS[2])
    (found,) = [
        row for row in fitted.table if (row["hook_point"], row["category"], row["sigma"][0]) == (BLOCKS[2], "gore", 0.0)
    ]
    u = fitted.vector.at(BLOCKS[2]).categories["gore"].direction[0]
    projected = {
        label: torch.stack(
            [
                states.pooled[i, 0] @ u
                for i, row in enumerate(rows)
                if row.split == "validation" and row.label == label and (label == SAFE or row.category == "gore")
            ]
        )
        for label in (SAFE, UNSAFE)
    }
    assert found["auc"] == pytest.approx(auc(projected[SAFE], projected[UNSAFE]))
    by_depth = [
        sum(row["auc"] for row in fitted.table if row["hook_point"] == name and row["category"] == "all")
        for name in BLOCKS
    ]
    assert by_depth == sorted(by_depth)
    assert [row["depth"] for row in fitted.table[::12]] == [0, 0.5, 1]
    assert found["halves_cosine"] > 0.8
    assert 0 < found["p_value"] <= 1
    json.dumps(fitted.table, allow_nan=False)


def test_the_statistics_repeat_with_its_seed(activations):
    first, again = (fit_vector(activations, SETTINGS).table for _ in range(2))
    assert first == again


def test_merged_bins_are_the_mean_of_what_was_seen():
    pooled = torch.randn(6, 4, 3)
    pooled[0, 1] = torch.nan
    token = torch.arange(6 * 4.0).reshape(6, 4, 1).expand(-1, -1, 3)
    merged = merged_bins(States(pooled, token), 2)
    torch.testing.assert_close(merged.pooled[1:, 0], pooled[1:, :2].mean(dim=1))
    torch.testing.assert_close(merged.pooled[0, 0], pooled[0, 0])
    assert merged.token[:, 1, 0].tolist() == [2, 7, 10, 15, 18, 23]
    assert merged_edges((0.0, 0.3, 0.6, 0.8, 1.0), 2) == (0.0, 0.6, 1.0)
    assert merged_edges((0.0, 0.5, 1.0), 0) == (0.0, 0.5, 1.0)
    with pytest.raises(SafetySteeringError, match=r"4 sigma bins, which do not merge into 3\. Choose 1, 2, 4"):
        merged_edges((0.0, 0.3, 0.6, 0.8, 1.0), 3)


def test_one_bin_for_all_and_one_category(activations):
    fitted = fit_vector(activations, SETTINGS, categories=("gore",), bins=1)
    assert fitted.vector.categories == ("gore",)
    assert fitted.vector.at(BLOCKS[0]).sigma_edges.tolist() == [0.0, 1.0]
    expected = merged_bins(activations.read(BLOCKS[0]), 1).pooled[:, 0].double()
    rows = activations.rows()
    means = [
        expected[[r.label == label and r.category == "gore" and r.split == "train" for r in rows]].mean(0)
        for label in (SAFE, UNSAFE)
    ]
    u = fitted.vector.at(BLOCKS[0]).categories["gore"].direction[0].double()
    assert float(torch.cosine_similarity(u, means[0] - means[1], dim=0)) == pytest.approx(1, abs=1e-6)


def test_what_cannot_be_fitted_is_said(activations, tmp_path):
    with pytest.raises(SafetySteeringError, match=r"category 'hate'\. There are: gore, drugs"):
        fit_vector(activations, SETTINGS, categories=("hate",))
    empty = Activations.create(tmp_path / "e", activations.source)
    with pytest.raises(SafetySteeringError, match="0 rows, 0 of them in the train split"):
        fit_vector(empty, SETTINGS)


def test_without_validation_rows_there_is_no_auc(tmp_path):
    fitted = fit_vector(build(tmp_path / "t", splits=("train",)), SETTINGS)
    assert {row["auc"] for row in fitted.table} == {None}
    assert dict(fitted.vector.info.validation_auc) == {}
    assert draw_separability(fitted.table).std() > 0


def test_the_chart_has_a_panel_a_category_and_follows_the_table(activations):
    table = fit_vector(activations, SETTINGS).table
    picture = draw_separability(table)
    assert picture.ndim == 3
    assert picture.shape[2] == 3
    one = draw_separability([row for row in table if row["category"] == "gore"])
    assert picture.shape[0] > 2 * one.shape[0]
    worse = [{**row, "auc": 0.5} if row["category"] == "gore" else row for row in table]
    assert (draw_separability(worse) != picture).any()
