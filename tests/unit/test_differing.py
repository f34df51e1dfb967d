"""The tokens that differ from a safe twin's, and the directions that are fitted on them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safety_steering_pack.safety_steering.activations import SAFE, UNSAFE, Activations, Row, Source, States
from safety_steering_pack.safety_steering.directions.differing import differing_tokens
from safety_steering_pack.safety_steering.directions.fitting import FitSettings, fit_states
from safety_steering_pack.safety_steering.directions.merging import merged_bins, merged_tokens
from safety_steering_pack.safety_steering.directions.native import fit_vector
from safety_steering_pack.safety_steering.directions.statistics import auc
from safety_steering_pack.safety_steering.errors import SafetySteeringError
from safety_steering_pack.safety_steering.vectors.card import describe
from safety_steering_pack.safety_steering.vectors.suggestion import ACTING
from safety_steering_pack.safety_steering.vectors.vector import DIFFERING

WIDTH, TOKENS, STEP = 8, 10, 6.0
BLOCK = "block.blocks.0.image"


def twins(count, *, text, seed=0, moved=2):
    """Pairs whose unsafe prompt has `moved` tokens far along channel 0; a text's twin has the others elsewhere."""
    generator = torch.Generator().manual_seed(seed)
    rows, states = [], []
    for i in range(count):
        shared = torch.randn(TOKENS, WIDTH, generator=generator)
        unsafe = shared + 0.01 * torch.randn(TOKENS, WIDTH, generator=generator)
        unsafe[:moved, 0] -= STEP
        states += [unsafe, shared.flip(0) if text else shared]
        split = "train" if i < count // 2 else "validation"
        rows += [Row(f"{i}/{label}", label, ("gore", "drugs")[i % 2], f"pair{i}", split) for label in (UNSAFE, SAFE)]
    tokens = torch.stack(states)[:, None].bfloat16()
    pooled = tokens.float().mean(dim=2)
    return rows, States(pooled, tokens[:, :, -1].float(), tokens)


@pytest.mark.parametrize("text", [True, False])
def test_the_tokens_that_the_twin_does_not_share_are_found(text):
    rows, states = twins(12, text=text)
    found = differing_tokens(rows, states, text=text)
    assert found.shape == (24, 1, TOKENS)
    assert found[0::2, 0, :2].all()
    assert not found[0::2, 0, 2:].any()
    assert not found[1::2].any()


def test_missing_tokens_never_differ_and_do_not_hide_others():
    rows, states = twins(4, text=True)
    states.tokens[0, :, 5:] = torch.nan
    states.tokens[1, :, :3] = torch.nan  # its twin lacks three of the shared ones
    found = differing_tokens(rows, states, text=True)
    assert found[0, 0, :2].all()
    assert not found[0, 0, 5:].any()


def test_rows_without_a_twin_have_none():
    rows, states = twins(4, text=False)
    rows[0] = Row("0", UNSAFE, "gore", "", "train")
    assert not differing_tokens(rows, states, text=False)[0].any()


def test_the_frames_of_a_video_are_compared_with_the_same_frame():
    rows, states = twins(1, text=False)
    frames = [
        Row(f"{row.id}/frame{frame}", row.label, row.category, row.pair, row.split, video=row.id)
        for row in rows
        for frame in range(2)
    ]
    tokens = torch.cat([states.tokens[:1], states.tokens[:1] + 50, states.tokens[1:], states.tokens[1:] + 50])
    both = States(tokens.float().mean(dim=2), tokens[:, :, 0].float(), tokens)
    found = differing_tokens(frames, both, text=False)
    assert found[:2, 0, :2].all()
    assert not found[:2, 0, 2:].any()


def fit(rows, states, **settings):
    how = FitSettings(tokens=DIFFERING, **settings)
    differing = differing_tokens(rows, states, text=False)
    return fit_states(
        rows, states, ("gore", "drugs"), how, space="s", sigma_edges=(0.0, 1.0), whole="all", differing=differing
    )


def test_a_direction_of_differing_tokens_is_theirs_against_every_benign_token():
    rows, states = twins(60, text=False)
    point, statistics = fit(rows, states)
    direction = point.categories["all"]
    train = [i for i, row in enumerate(rows) if row.split == "train"]
    unsafe, safe = (states.tokens[train[start::2], 0].float() for start in (0, 1))
    d = safe.mean(dim=(0, 1)) - unsafe[:, :2].mean(dim=(0, 1))
    torch.testing.assert_close(direction.direction[0], d / d.norm(), atol=1e-4, rtol=1e-3)
    along = safe.flatten(0, 1) @ direction.direction[0]
    assert float(direction.gap[0]) == pytest.approx(float(d @ direction.direction[0]), rel=1e-3)
    assert float(direction.center[0]) == pytest.approx(float(along.mean()), abs=1e-4)
    assert float(direction.std_token[0]) == pytest.approx(float(along.std()), rel=1e-3)
    assert float(direction.gap[0]) > 0.9 * STEP  # the pooled gap is a fifth of that
    assert {one.tokens for some in statistics.values() for one in some} == {DIFFERING}


def test_the_scatter_of_a_shrunk_direction_is_that_of_benign_tokens():
    rows, states = twins(60, text=False)
    states.tokens[:, :, :, 1] *= 30  # a channel that varies among the tokens of every prompt
    states.tokens[0::2, :, :2, 1] -= 30
    plain, shrunk = fit(rows, states)[0], fit(rows, states, method="shrunk_lda", shrinkage=0.01)[0]
    share = [abs(float(point.categories["all"].direction[0, 1])) for point in (plain, shrunk)]
    assert share[0] > 0.9
    assert share[1] < 0.2


def test_a_category_without_twins_is_fitted_on_pooled_states():
    rows, states = twins(60, text=False)
    alone = [Row(row.id, row.label, row.category, "", row.split) if row.category == "drugs" else row for row in rows]
    point, statistics = fit(alone, states, halves=2, permutations=20)
    kinds = {name: some[0].tokens for name, some in statistics.items()}
    assert kinds == {"gore": "differing", "drugs": "pooled", "all": "differing"}
    assert float(point.categories["gore"].gap[0]) > 3 * float(point.categories["drugs"].gap[0])
    assert statistics["gore"][0].unsafe == 15
    assert statistics["all"][0].unsafe == 15  # those with a twin
    assert statistics["gore"][0].p_value < 0.1


def test_merged_bins_keep_every_token():
    tokens = torch.arange(2 * 4 * 3.0).reshape(2, 4, 3, 1)
    merged = merged_bins(States(tokens[:, :, 0], tokens[:, :, 0], tokens), 2).tokens
    assert merged.shape == (2, 2, 6, 1)
    assert merged[0, 1, :, 0].tolist() == [6, 7, 8, 9, 10, 11]
    assert torch.equal(merged_tokens(tokens[..., 0], 2), merged[..., 0])


@pytest.fixture
def folder(tmp_path):
    """A capture of the text states and of a block."""
    source = Source({"conditioning": ("t/text", WIDTH), BLOCK: ("t/b", WIDTH)}, (0.0, 1.0), block_counts={"blocks": 1})
    activations = Activations.create(tmp_path / "a", source)
    rows, text = twins(60, text=True)
    activations.append(rows, {"conditioning": text, BLOCK: twins(60, text=False, seed=1)[1]})
    return activations


def test_a_fit_says_what_it_was_made_of(folder):
    fitted = fit_vector(folder, FitSettings(tokens=DIFFERING))
    assert {row["tokens"] for row in fitted.table} == {DIFFERING}
    assert min(row["token_auc"] for row in fitted.table) > 0.99
    assert fitted.vector.info.parameters["tokens"] == DIFFERING
    assert fitted.vector.info.provenance[0]["evidence"][0]["tokens"] == DIFFERING
    pooled = fit_vector(folder, FitSettings())
    assert {(row["tokens"], row["token_auc"]) for row in pooled.table} == {("pooled", None)}


def test_a_vector_that_can_detect_and_act_suggests_to_do_both(folder):
    vector = fit_vector(folder, FitSettings(tokens=DIFFERING)).vector
    found = vector.info.suggestion
    assert found == replace(ACTING, false_alarm=0.0, hook_points=("conditioning",), mix={"all": 1.0})
    assert dict(vector.mix) == {"all": 1.0}
    benign = folder.read("conditioning").pooled[1::2, 0]
    assert fit_vector(folder, FitSettings(tokens=DIFFERING), benign=benign).vector.info.suggestion == replace(
        found, false_alarm=ACTING.false_alarm
    )
    assert "prompt at -4 std and tokens below -2 std" in describe(vector)
    assert "detectors: thresholds of 60 harmless prompts" in describe(vector)
    pooled = fit_vector(folder, FitSettings()).vector.info.suggestion
    assert (pooled.gate, pooled.mix) == ("pooled", {"gore": 1.0, "drugs": 1.0})


def test_without_text_states_the_card_says_what_is_missing(folder, tmp_path):
    source = replace(folder.source, hook_points={BLOCK: folder.source.hook_points[BLOCK]})
    blocks = Activations.create(tmp_path / "b", source)
    blocks.append(folder.rows(), {BLOCK: folder.read(BLOCK, tokens=True)})
    vector = fit_vector(blocks, FitSettings(tokens=DIFFERING)).vector
    assert vector.info.suggestion.gate == "pooled"
    assert "detectors: none: the gate prompt needs conditioning captured" in describe(vector)


def test_the_token_auc_is_of_held_out_tokens(folder):
    fitted = fit_vector(folder, FitSettings(tokens=DIFFERING))
    (row,) = [row for row in fitted.table if row["hook_point"] == BLOCK and row["category"] == "gore"]
    rows, tokens = folder.rows(), folder.read(BLOCK, tokens=True).tokens[:, 0].float()
    along = tokens @ fitted.vector.at(BLOCK).categories["gore"].direction[0]
    held = [i for i, one in enumerate(rows) if one.split == "validation"]
    safe = along[[i for i in held if rows[i].label == SAFE]].flatten()
    unsafe = along[[i for i in held if rows[i].label == UNSAFE and rows[i].category == "gore"]][:, :2].flatten()
    assert row["token_auc"] == pytest.approx(auc(safe, unsafe))


def test_an_older_capture_has_no_tokens_to_differ(tmp_path):
    rows, states = twins(8, text=True)
    activations = Activations.create(tmp_path / "a", Source({"conditioning": ("t/text", WIDTH)}, (0.0, 1.0)))
    activations.append(rows, {"conditioning": States(states.pooled, states.token)})
    with pytest.raises(SafetySteeringError, match="Capture again into an empty folder"):
        fit_vector(activations, FitSettings(tokens=DIFFERING))
    assert fit_vector(activations, FitSettings()).vector.categories == ("gore", "drugs", "all")
