"""The mix string."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safety_steering_pack.safety_steering import MismatchError, SafetySteeringError
from safety_steering_pack.safety_steering.mix import check_mix, format_mix, parse_mix
from tiny_vectors import random_vector

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
