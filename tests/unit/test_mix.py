"""The mix string."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safety_steering_pack.safety_steering.errors import MismatchError, SafetySteeringError
from safety_steering_pack.safety_steering.vectors.mix import PRESETS, check_mix, format_mix, parse_mix, resolve_mix
from tiny.vectors import random_vector

properties = settings(max_examples=100, deadline=None)  # no deadline: the machine may be busy

names = st.text(min_size=1, max_size=12).map(str.strip).filter(lambda name: name and not set(name) & set("=,/"))
weights = st.floats(allow_nan=False, allow_infinity=False)


@properties
@given(st.dictionaries(names, weights, max_size=6))
def test_a_mix_string_reads_back_as_the_same_weights(mix):
    again = parse_mix(format_mix(mix))
    assert again == mix
    assert list(again) == list(mix)


def test_how_people_write_it():
    assert parse_mix("violence=1, sexual=0.5") == {"violence": 1.0, "sexual": 0.5}
    assert parse_mix(" violence = 1e-1 ,, gore=-2,") == {"violence": 0.1, "gore": -2.0}
    assert parse_mix("") == {}
    assert format_mix({"violence": 1.0, "sexual": 0.5}) == "violence=1, sexual=0.5"


@pytest.mark.parametrize(
    "part", ["violence", "violence=", "=1", "violence=much", "violence=nan", "violence=inf", "a=1=2"]
)
def test_a_part_that_is_no_weight_is_named(part):
    with pytest.raises(SafetySteeringError, match=f"'{part}' that does not read as category=number"):
        parse_mix(f"gore=1, {part}")


def test_an_error_quotes_little_of_a_long_string():
    for long in ("x" * 5000, ", ".join(f"c{i}" for i in range(2000))):
        with pytest.raises(SafetySteeringError) as raised:
            parse_mix(long)
        assert len(str(raised.value)) < 250


def test_a_category_stands_once():
    with pytest.raises(SafetySteeringError, match="names the category 'gore' twice"):
        parse_mix("gore=1, gore=2")


def test_a_vector_takes_only_weights_it_can_use():
    vector = random_vector({"conditioning": ("umt5xxl.last", 8)}, categories=("violence", "gore"))
    assert dict(vector.mix) == {"violence": 1.0, "gore": 1.0}
    assert dict(vector.with_mix({"gore": 0.5}).mix) == {"gore": 0.5}
    with pytest.raises(MismatchError, match=r"names 'hate', which this vector lacks. Its categories: violence, gore"):
        vector.with_mix({"hate": 1.0})
    for weight in (math.nan, math.inf):
        with pytest.raises(SafetySteeringError, match="not a finite number"):
            check_mix({"gore": weight}, vector.categories)
    for weight in (50.1, -1e30):
        with pytest.raises(SafetySteeringError, match=r"'gore' the weight .* Weights go from -50 to 50"):
            check_mix({"gore": weight}, vector.categories)


KNOWN = ("violence", "gore", "all")
SUGGESTED = {"violence": 1.0, "gore": 0.5}


@pytest.mark.parametrize(
    ("preset", "text", "weights"),
    [
        ("standard", "", {"violence": 1.0, "gore": 0.5, "all": 0.0}),
        ("light", "", {"violence": 0.5, "gore": 0.25, "all": 0.0}),
        ("strict", "", {"violence": 1.5, "gore": 0.75, "all": 0.0}),
        ("off", "", {"violence": 0.0, "gore": 0.0, "all": 0.0}),
        ("strict", "gore=0.2", {"violence": 1.5, "gore": 0.2, "all": 0.0}),
        ("off", "violence=1", {"violence": 1.0, "gore": 0.0, "all": 0.0}),
        ("custom", "all=2", {"violence": 0.0, "gore": 0.0, "all": 2.0}),
        ("custom", "violence=0", {"violence": 0.0, "gore": 0.0, "all": 0.0}),
    ],
)
def test_what_the_string_names_holds_and_the_preset_weighs_the_rest(preset, text, weights):
    mixed = resolve_mix(preset, text, KNOWN, SUGGESTED)
    assert dict(mixed.weights) == weights
    assert list(mixed.weights) == list(KNOWN)
    assert not mixed.unknown


@properties
@given(st.sampled_from(sorted(PRESETS)), st.dictionaries(names, weights, min_size=1, max_size=4))
def test_the_string_is_the_truth_under_every_preset(preset, mix):
    mixed = resolve_mix(preset, format_mix(mix), [*mix, "another"])
    assert {name: mixed.weights[name] for name in mix} == mix
    assert mixed.weights["another"] == PRESETS[preset]


def test_without_a_suggestion_every_category_weighs_one():
    assert set(resolve_mix("standard", "", KNOWN).weights.values()) == {1.0}


def test_what_a_vector_lacks_is_kept_and_said():
    mixed = resolve_mix("custom", "gore=1, hate=0.5", KNOWN, SUGGESTED)
    assert dict(mixed.unknown) == {"hate": 0.5}
    assert mixed.summary() == (
        "Steers gore=1.\nLeft alone: violence, all.\nNOT steered: hate=0.5. This vector only knows violence, gore, all."
    )
    assert resolve_mix("off", "", KNOWN).summary() == "Off: every category weighs 0, nothing is steered."
    whole = resolve_mix("standard", "", ("gore", "drugs", "all"), {"all": 1.0})
    assert whole.summary() == "Steers all=1."  # one direction of every category leaves none alone


@pytest.mark.parametrize("preset", ["off", "custom"])
def test_asking_only_for_what_a_vector_lacks_is_refused(preset):
    with pytest.raises(MismatchError, match=r"asks for violnce and for nothing that this vector knows"):
        resolve_mix(preset, "violnce=1", KNOWN, SUGGESTED)
    assert dict(resolve_mix(preset, "violnce=0", KNOWN, SUGGESTED).unknown) == {"violnce": 0.0}


def test_an_empty_custom_mix_and_an_unknown_preset_are_refused():
    with pytest.raises(SafetySteeringError, match="preset is custom and the mix is empty"):
        resolve_mix("custom", " ", KNOWN)
    with pytest.raises(SafetySteeringError, match="no preset 'severe'"):
        resolve_mix("severe", "", KNOWN)


def test_the_table_in_the_docs_is_the_one_in_the_code(repo_root):
    text = (repo_root / "docs" / "mixing.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", text, re.MULTILINE)
    assert {preset: float(factor) for preset, factor in rows} == dict(PRESETS)
