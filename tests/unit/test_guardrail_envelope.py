"""What a request's body must look like, whose jobs are whose, and how client text is repeated."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safety_steering_pack.guardrail.envelope import (
    DEEPEST,
    EnvelopeError,
    check_body,
    check_prompt_body,
    depth_of,
    parse_body,
)
from safety_steering_pack.guardrail.plain_text import shown, trimmed
from safety_steering_pack.guardrail.policy_settings import Limits
from safety_steering_pack.guardrail.tenants import Tenants
from safety_steering_pack.safety_steering.errors import SafetySteeringError

plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
values = st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))


@settings(suppress_health_check=[HealthCheck.too_slow])  # a busy machine draws slowly
@given(st.dictionaries(st.sampled_from(["prompt", "prompt_id", "number", "client_id", "extra_data", "front"]), values))
def test_every_body_passes_or_is_named(body):
    with suppress(EnvelopeError):
        check_prompt_body(body)
        assert isinstance(body["prompt"], dict)
        assert isinstance(body.get("client_id"), str | None)
        assert isinstance(body.get("number", 0), int | float)


@given(values)
def test_depth(value):
    def depth(item):
        inner = item.values() if isinstance(item, dict) else item if isinstance(item, list) else None
        return 0 if inner is None else 1 + max(map(depth, inner), default=0)

    assert depth_of(value) == depth(value)


@pytest.mark.parametrize("depth", [DEEPEST, DEEPEST + 1, 100_000])
def test_what_is_nested_too_deeply_is_not_read(depth):
    data = b"[" * depth + b"]" * depth
    if depth <= DEEPEST:
        assert json.loads(data) == parse_body(data)
    else:
        with pytest.raises(EnvelopeError):
            parse_body(data)


@pytest.mark.parametrize(("route", "body"), [("/queue", {"delete": "abc"}), ("/history", []), ("/settings", 3)])
def test_other_routes(route, body):
    with pytest.raises(EnvelopeError):
        check_body(route, body)


@given(st.text(max_size=500))
def test_text_is_shown_on_one_line_and_cut(text):
    line = shown(text)
    assert line.isprintable()
    assert len(line) <= 203
    if text.isprintable() and len(text) <= 200:
        assert line == text


def test_nested_text_is_trimmed():
    assert trimmed({"a\n": ["x" * 900, 1, None, {"b": {"c": [[]]}}]}, 10, depth=3) == {
        "a\\n": ["xxxxxxxxxx...", 1, None, {"b": "..."}]
    }


def test_tenants():
    tenants, limits = Tenants(), Limits(queue=3, per_tenant=1)
    tenants.note("1", "a")
    tenants.note("2", None)
    assert tenants.owns(None, "1")
    assert tenants.owns("a", "1")
    assert not any([tenants.owns("b", "1"), tenants.owns("", "2"), tenants.owns("a", "3")])
    with pytest.raises(SafetySteeringError, match="1 of your jobs wait"), tenants.entering("a", ["1"], limits):
        pass
    with (
        tenants.entering("b", ["1"], limits),
        pytest.raises(SafetySteeringError, match="1 of your jobs"),
        tenants.entering("b", ["1"], limits),
    ):
        pass
    with pytest.raises(SafetySteeringError, match="3 jobs wait already"), tenants.entering("c", "123", limits):
        pass
