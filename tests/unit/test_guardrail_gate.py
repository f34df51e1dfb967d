"""The output gate and the counters."""

from __future__ import annotations

import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safety_steering_pack.guardrail.errors import MetricsError
from safety_steering_pack.guardrail.metrics import COUNTERS, Metrics
from safety_steering_pack.guardrail.output_gate import BACKGROUND, GateDecision, decide, notice_image
from safety_steering_pack.guardrail.policy_settings import OutputGateSettings

GATE = OutputGateSettings(mode="notice", judge="judges:look", thresholds={"violence": 0.5, "sexual": 0.8})
SAFE = {"violence": 0.1, "sexual": 0.1}

scores = st.floats(0, 1)
frames = st.lists(st.fixed_dictionaries({"violence": scores, "sexual": scores}), min_size=1, max_size=6)


@given(frames)
def test_an_output_passes_if_every_frame_stays_below_every_threshold(judged):
    safe = all(frame["violence"] < 0.5 and frame["sexual"] < 0.8 for frame in judged)
    decision = decide(judged, GATE)
    assert decision.action == ("deliver" if safe else "notice")
    if not safe:
        assert decision.score == judged[decision.frame][decision.category] >= GATE.thresholds[decision.category]


def test_the_first_frame_that_trips_is_named():
    decision = decide([SAFE, {**SAFE, "sexual": 0.9}, {**SAFE, "violence": 1.0}], GATE)
    assert decision == GateDecision("notice", 1, "sexual", 0.9)
    assert decision.reason == "Frame 1 scored 0.900 for 'sexual'."
    assert decide([SAFE], GATE).reason == ""


@pytest.mark.parametrize("judged", [[], [{}], [{"violence": 0.1}], [{**SAFE, "sexual": float("nan")}]])
def test_what_was_not_judged_does_not_pass(judged):
    decision = decide(judged, GATE.model_copy(update={"mode": "fail"}))
    assert (decision.action, decision.score) == ("fail", None)
    assert "no usable score" in decision.reason


def test_a_gate_that_is_off_lets_all_pass():
    assert decide([{"violence": 1.0}], OutputGateSettings()).action == "deliver"


@pytest.mark.parametrize("size", [(832, 480), (64, 64), (16, 9), (1, 1)])
def test_the_notice_has_the_frames_size_and_says_something(size):
    image = notice_image(*size)
    assert (image.size, image.mode) == (size, "RGB")
    pixels = np.asarray(image)
    assert (pixels == BACKGROUND).any()
    assert min(size) < 9 or (pixels != BACKGROUND).any()


def test_the_whole_notice_fits_into_a_picture():
    written = (np.asarray(notice_image(512, 512)) != BACKGROUND).any(axis=2)
    rows, columns = np.nonzero(written)
    assert rows.min() > 100
    assert rows.max() < 412
    assert columns.min() > 10
    assert columns.max() < 502


def test_counts_from_many_threads_add_up():
    metrics = Metrics()

    def count() -> None:
        for _ in range(500):
            metrics.add("jobs")
            metrics.add("steps", 3)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert metrics.counts() == {**dict.fromkeys(COUNTERS, 0), "jobs": 4000, "steps": 12000}


def test_prometheus_reads_every_counter():
    pytest.importorskip("prometheus_client", reason="an optional extra")
    from prometheus_client.parser import text_string_to_metric_families

    metrics = Metrics()
    metrics.add("gate_trips", 2)
    text, content_type = metrics.render()
    read = {
        sample.name: sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }
    assert read == {f"safety_steering_{name}_total": 2.0 * (name == "gate_trips") for name in COUNTERS}
    assert content_type.startswith("text/plain")


def test_without_prometheus_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(MetricsError, match="pip install prometheus-client"):
        Metrics().render()
