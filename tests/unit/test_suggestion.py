"""The settings recommended for a vector: whole, as strong as the level says, and told in words."""

from __future__ import annotations

from dataclasses import replace

import pytest
from safetensors import safe_open
from safetensors.torch import save_file
from safety_steering_pack.bridge.steering.settings import SteeringSettings, recommended_settings
from safety_steering_pack.safety_steering.errors import SafetySteeringError, VectorFileError
from safety_steering_pack.safety_steering.vectors.file import load_vector, save_vector
from safety_steering_pack.safety_steering.vectors.suggestion import CARRIED, NATIVE, describe_choice, recommended
from safety_steering_pack.safety_steering.vectors.vector import BASES, Suggestion
from tiny.vectors import random_vector

BLOCK = "block.blocks.2.image"
SPACES = {"conditioning": ("umt5xxl.last", 8), BLOCK: ("tiny/block.blocks.2.image", 6)}
OWN = Suggestion(
    strength=3.0,
    hook_points=("conditioning", BLOCK),
    intervention="ablate",
    mix={"violence": 0.5},
    norm="none",
    gate="token",
    threshold=-1.5,
    false_alarm=0.01,
    window=(0.1, 0.9),
    branch="positive",
    strengths={BLOCK: 0.5},
    basis="calibrated",
    basis_model="Wan",
    basis_judge="a judge",
    basis_n=64,
)
STEP = {
    "step": "calibrate",
    "model": "Wan",
    "judge": "a judge",
    "mix": {"violence": 0.5},
    "setting": {
        "hook_points": [BLOCK],
        "strength": 4.0,
        "window": [0.0, 0.5],
        "kind": "add",
        "norm": "channel",
        "gate": "off",
        "threshold": -1.0,
    },
    "measured": {"n_unsafe": 40, "n_benign": 24},
}


NOTHING = Suggestion()


def vector(suggestion: Suggestion = NOTHING, **changes):
    made = random_vector(SPACES, family="wan", block_counts={"blocks": 4})
    return made.with_info(suggestion=suggestion, **changes)


def whole(found: Suggestion) -> bool:
    return all((found.hook_points, found.intervention, found.mix, found.norm, found.gate, found.branch, found.basis))


def test_a_suggestion_is_followed_as_it_is():
    assert recommended(vector(OWN)) == OWN


@pytest.mark.parametrize(("kind", "default"), [("native", NATIVE), ("transferred", CARRIED), ("source", CARRIED)])
def test_without_a_basis_the_family_default_holds_at_the_suggested_hook_points(kind, default):
    found = recommended(vector(Suggestion(0.25, (BLOCK,), "add"), kind=kind))
    assert found == replace(default, hook_points=(BLOCK,), mix={"violence": 1.0})
    assert whole(found)
    assert recommended(vector(kind=kind)).hook_points == ("conditioning",)


@pytest.mark.parametrize("basis", BASES[1:])
def test_what_a_suggestion_leaves_open_is_filled(basis):
    found = recommended(vector(Suggestion(strength=3.0, hook_points=("block.blocks.3.image",), basis=basis)))
    assert whole(found)
    assert (found.strength, found.basis, found.hook_points) == (3.0, basis, ("conditioning",))
    assert (found.gate, found.threshold) == (NATIVE.gate, NATIVE.threshold)
    assert recommended(vector(Suggestion(gate="off", basis=basis))).gate == "off"


def test_a_calibration_of_before_there_was_a_basis_is_found_in_the_provenance():
    found = recommended(vector(Suggestion(4.0, (BLOCK,), "add"), provenance=(STEP,)))
    assert (found.basis, found.basis_model, found.basis_judge, found.basis_n) == ("calibrated", "Wan", "a judge", 64)
    assert (found.strength, found.intervention, found.norm, found.gate) == (4.0, "add", "channel", "off")
    assert (found.window, found.hook_points, found.mix) == ((0.0, 0.5), (BLOCK,), {"violence": 0.5})
    broken = {**STEP, "setting": {"strength": "much"}}
    assert recommended(vector(provenance=(broken,))).basis == "family default"


def test_an_older_file_reads_as_before_and_keeps_its_hash(tmp_path, repo_root):
    saved = vector(Suggestion(2.0, (BLOCK,), "clamp", {"violence": 1.0}))
    path = save_vector(saved, tmp_path / "a.safetensors")
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["suggestion"] == (
            '{"strength": 2.0, "hook_points": ["block.blocks.2.image"], "intervention": "clamp", '
            '"mix": {"violence": 1.0}}'
        )
    assert load_vector(path).info.suggestion == saved.info.suggestion
    older = load_vector(repo_root / "demo" / "weights" / "small_wan_native.safetensors")
    assert older.sha256 == "b0f7a50974b75794ec2ed7bcb79792a1fe648cf2f24b3e4fad57193300d44c27"
    assert older.sha256 != older.with_info(suggestion=replace(older.info.suggestion, norm="channel")).sha256


@pytest.mark.parametrize(
    ("suggestion", "words"),
    [
        (
            '{"basis": "guessed"}',
            "the suggestion's basis is 'guessed', expected one of calibrated, benign only",
        ),
        ('{"threshold": NaN}', "suggested threshold is not a finite number"),
        ('{"strengths": {"conditioning": Infinity}}', "suggested strength is not a finite number"),
        ('{"window": [0.5, 0.5]}', "suggested window is 0.5 to 0.5; it lies in 0 to 1, start first"),
        ('{"window": [0.5]}', "holds a value of the wrong kind"),
        ('{"false_alarm": 2}', "suggested false alarm is 2.0, not 0 to 1"),
        ('{"strengths": [1]}', "holds a value of the wrong kind"),
        ('{"basis_n": -1}', "number of prompts is -1"),
    ],
)
def test_a_suggestion_that_cannot_be_followed_is_refused_when_the_file_is_read(tmp_path, suggestion, words):
    path = save_vector(vector(), tmp_path / "a.safetensors")
    with safe_open(path, framework="pt") as file:
        tensors, facts = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    save_file(tensors, path, metadata=facts | {"suggestion": suggestion})
    with pytest.raises(VectorFileError, match=words):
        load_vector(path)


def test_the_level_multiplies_every_strength():
    settings = recommended_settings(vector(OWN), 0.5)
    assert settings == SteeringSettings(
        1.5, OWN.hook_points, settings.intervention, (0.1, 0.9), "positive", {BLOCK: 0.25}, 0.5, "calibrated"
    )
    assert (settings.strength_at("conditioning"), settings.strength_at(BLOCK)) == (1.5, 0.25)
    assert vars(settings.intervention) == {
        "kind": "ablate",
        "norm": "none",
        "gate": "token",
        "threshold": -1.5,
        "false_alarm": 0.0,  # OWN's belongs to the gate prompt
        "token_threshold": None,
    }
    assert recommended_settings(vector(OWN)).strength == 3.0
    assert recommended_settings(vector(OWN), 0).off
    assert not settings.off


@pytest.mark.parametrize("level", [-0.1, 2.1, float("nan"), float("inf")])
def test_a_level_out_of_range_is_refused(level):
    with pytest.raises(SafetySteeringError, match=r"The level is .*from 0 .off. to 2"):
        recommended_settings(vector(OWN), level)


def test_an_unknown_intervention_is_refused():
    with pytest.raises(SafetySteeringError, match="'wish' is not one of add, ablate, clamp"):
        recommended_settings(vector(replace(OWN, intervention="wish")))


def test_the_choice_is_told_in_words():
    def told(level: float = 1.0, **changes) -> str:
        return describe_choice(recommended(vector(replace(OWN, **changes))), level)

    where = "the prompt and block.blocks.2.image"
    assert told() == f"ablate at {where}, strength 0.5 to 3: calibrated on Wan with a judge on 64 prompts"
    alone = {"hook_points": ("conditioning",), "intervention": "clamp", "strength": 8.0}
    assert (
        told(basis="benign only", **alone) == "clamp at the prompt, strength 8: estimated from harmless captions only"
    )
    assert told(2, basis="family default", **alone) == (
        "clamp at the prompt, strength 16: the usual settings for vectors of this kind, not measured on this model"
    )
    assert told(0) == "off: the level is 0"


def test_the_small_worlds_vectors_have_their_suggestions(repo_root):
    def choice(name: str) -> Suggestion:
        found = load_vector(repo_root / "demo" / "weights" / f"small_wan_{name}.safetensors")
        assert recommended(found) == found.info.suggestion
        return found.info.suggestion

    for name in ("native", "random"):
        assert (choice(name).basis, choice(name).strength, choice(name).threshold) == ("family default", 6.0, -4.0)
    chosen = choice("native_lda")
    assert (chosen.basis, chosen.basis_model, chosen.basis_n) == ("calibrated", "small world Wan", 120)
    assert (chosen.strength, chosen.norm, chosen.gate, chosen.threshold) == (6.0, "none", "pooled", -2.5)
