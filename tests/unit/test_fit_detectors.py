"""Detectors that a fit makes of captured text states."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safety_steering_pack.safety_steering.activations import SAFE, UNSAFE, Activations, Row, Source, States
from safety_steering_pack.safety_steering.directions.fitting import FitSettings, fit_states
from safety_steering_pack.safety_steering.directions.native import fit_vector
from safety_steering_pack.safety_steering.errors import SafetySteeringError
from safety_steering_pack.safety_steering.steering.interventions import Intervention
from safety_steering_pack.safety_steering.steering.prompt_gate import decide, make_gate
from safety_steering_pack.safety_steering.vectors.file import load_vector, save_vector

WIDTH, COUNT = 16, 200
BLOCK = "block.blocks.0.image"
SOURCE = Source({"conditioning": ("t/text", WIDTH), BLOCK: ("t/b", WIDTH)}, (0.0, 0.5, 1.0), block_counts={"blocks": 1})


def capture(folder, source=SOURCE):
    """Twins; an unsafe prompt's text states lie lower along its category's channel."""
    generator = torch.Generator().manual_seed(4)
    rows, text = [], torch.randn(2 * COUNT, WIDTH, generator=generator)
    for i in range(COUNT):
        split = "train" if i % 3 else "validation"
        rows += [Row(f"{i}/{label}", label, ("gore", "drugs")[i % 2], f"pair{i}", split) for label in (UNSAFE, SAFE)]
        text[2 * i, i % 2] -= 8
    states = {name: States(text[:, None].repeat(1, 2, 1), text[:, None].repeat(1, 2, 1)) for name in source.hook_points}
    activations = Activations.create(folder, source)
    activations.append(rows, states)
    return activations


def test_detectors_are_shrunk_discriminants_of_the_mean_states(tmp_path):
    activations = capture(tmp_path / "a")
    fitted = fit_vector(activations, FitSettings())
    detectors = fitted.vector.detectors
    assert (detectors.hook_point, detectors.space, detectors.benign) == ("conditioning", "t/text", COUNT)
    assert set(detectors.categories) == {"gore", "drugs", "all"}
    rows, states = activations.rows(), activations.read("conditioning")
    one = States(states.pooled[:, :1], states.token[:, :1])
    lda, _ = fit_states(
        rows, one, ("gore", "drugs"), FitSettings(method="shrunk_lda"), space="s", sigma_edges=(0.0, 1.0), whole="all"
    )
    benign = states.pooled[[row.label == SAFE and row.split == "train" for row in rows], 0]
    for name, detector in detectors.categories.items():
        torch.testing.assert_close(detector.direction, lda.categories[name].direction[0])
        assert float(detector.center) == pytest.approx(float((benign @ detector.direction).mean()), abs=1e-5)
    again = load_vector(save_vector(fitted.vector, tmp_path / "v.safetensors"))
    assert again.detectors.benign == COUNT


def test_the_table_says_what_they_do_on_validation(tmp_path):
    table = fit_vector(capture(tmp_path / "a"), FitSettings()).table
    text = [row for row in table if row["hook_point"] == "conditioning"]
    assert all(row["detector_auc"] > 0.99 and row["detector_opens"] > 0.9 for row in text)
    assert {row["detector_auc"] for row in table if row["hook_point"] == BLOCK} == {None}


def test_the_gate_lets_the_asked_share_of_benign_prompts_through(tmp_path):
    activations = capture(tmp_path / "a")
    detectors = fit_vector(activations, FitSettings()).vector.detectors
    rows, states = activations.rows(), activations.read("conditioning").pooled[:, :1]
    decision = decide(states, None, make_gate(detectors, Intervention("clamp", gate="prompt", false_alarm=0.1)))
    opened = decision.of(("gore",)).opened[:, 0, 0]
    benign = torch.tensor([row.label == SAFE for row in rows])
    gore = torch.tensor([row.label == UNSAFE and row.category == "gore" for row in rows])
    assert float(opened[benign].float().mean()) == pytest.approx(0.1, abs=0.01)
    assert opened[gore].all()


def test_further_benign_prompts_move_the_threshold_but_not_the_detector(tmp_path):
    activations = capture(tmp_path / "a")
    plain = fit_vector(activations, FitSettings()).vector.detectors
    benign = 2 * torch.randn(400, WIDTH, generator=torch.Generator().manual_seed(9))
    diverse = fit_vector(activations, FitSettings(), benign=benign).vector.detectors
    assert diverse.benign == COUNT + 400
    for name in plain.categories:
        one, other = plain.categories[name], diverse.categories[name]
        assert torch.equal(one.direction, other.direction)
        assert other.threshold(0.01) < one.threshold(0.01) - 0.5
    with pytest.raises(SafetySteeringError, match="Connect the text encoder that the capture used"):
        fit_vector(activations, FitSettings(), benign=benign[:, :4])


@pytest.mark.parametrize(
    "source",
    [replace(SOURCE, hook_points={BLOCK: ("t/b", WIDTH)}), replace(SOURCE, branch="negative")],
    ids=["no text states", "the negative prompt's"],
)
def test_without_the_prompts_text_states_there_is_no_detector(tmp_path, source):
    fitted = fit_vector(capture(tmp_path / "a", source), FitSettings())
    assert fitted.vector.detectors is None
    assert {row["detector_auc"] for row in fitted.table} == {None}
