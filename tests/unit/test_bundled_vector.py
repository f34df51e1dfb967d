"""The bundled portable vector: what its card says is what its file holds, and a part of it made anew is the same."""

from __future__ import annotations

import json
import re

import pytest
import smollm2
import torch
from safety_steering_pack.safety_steering.directions.pairs import best_layer
from safety_steering_pack.safety_steering.errors import SafetySteeringError
from safety_steering_pack.safety_steering.language_models.transformers_model import LanguageModel
from safety_steering_pack.safety_steering.prompts.files import load_prompts
from safety_steering_pack.safety_steering.vectors.file import load_vector

CATEGORIES = ("hate", "sexual", "violence", "humiliation", "illegal", "disturbing")
SAMPLE = slice(0, 1000, 100)


@pytest.fixture(scope="module")
def vector(repo_root):
    return load_vector(repo_root / "vectors" / "smollm2_135m_portable.safetensors")


@pytest.fixture(scope="module")
def card(repo_root):
    return (repo_root / "vectors" / "smollm2_135m_portable.md").read_text()


@pytest.fixture(scope="module")
def table(repo_root):
    return json.loads((repo_root / "vectors" / "smollm2_135m_portable.json").read_text())["rows"]


def test_it_is_made_of_the_bundled_prompts(vector, repo_root):
    prompts = repo_root / "vectors" / "prompts"
    assert vector.info.prompts_sha256 == load_prompts(prompts / "safety_pairs.csv").sha256
    assert vector.anchors.texts == tuple(row.safe for row in load_prompts(prompts / "benign_anchors.csv").rows)
    assert tuple(vector.mix) == CATEGORIES
    assert vector.categories == (*CATEGORIES, "all")
    assert vector.info.kind == "source"
    assert vector.info.validated_on == ()


def test_its_layer_is_the_sweeps_best(vector, table):
    assert {row["layer"] for row in table} == set(range(31))
    assert best_layer(table, CATEGORIES) == vector.info.parameters["layer"]
    own = {row["category"]: row["auc"] for row in table if row["layer"] == vector.info.parameters["layer"]}
    assert own == dict(vector.info.validation_auc)


def test_the_cards_numbers_are_the_files(vector, card):
    evidence = {row["category"]: row for row in vector.info.provenance[0]["evidence"]}
    for name in CATEGORIES:
        row = evidence[name]
        (line,) = re.findall(rf"^\| {name} \|.*", card, flags=re.MULTILINE)
        kept = row["with_valence"]
        assert line == (
            f"| {name} | {row['auc']:.3f} ({kept['auc']:.3f}) | {row['auc_negative']:.3f} | {row['left_out_auc']:.3f} "
            f"| {row['shuffled_auc']:.3f} | {row['valence_auc']:.3f} ({kept['valence_auc']:.3f}) "
            f"| {row['n_train']} + {row['n_validation']} |"
        )
        assert row["auc"] > row["left_out_auc"] > row["shuffled_auc"]
        assert abs(row["valence_auc"] - 0.5) < abs(kept["valence_auc"] - 0.5)


def test_the_card_opens_with_its_limits(card):
    assert card.index("never been tried on the real weights") < card.index("| category |")


def test_a_part_made_anew_is_the_same_bit_for_bit(vector):
    if not (smollm2.cached_folder() / "config.json").is_file() and smollm2.installed_gguf() is None:
        pytest.skip("SmolLM2 is not here: tools/smollm2.py fetches it, 98 MB")
    try:
        model = LanguageModel(smollm2.smollm2_folder(), dtype="float64")
    except SafetySteeringError as refused:  # the cache is shared by environments, such as that of the lowest packages
        if "was saved by transformers" not in str(refused):
            raise
        pytest.skip(str(refused))
    assert model.fingerprint == vector.info.weight_fingerprint
    layer = vector.info.parameters["layer"]
    states = model.states(vector.anchors.texts[SAMPLE], [layer], vector.info.pooling)[:, 0]
    assert torch.equal(states.half().float(), vector.anchors.states[SAMPLE])
