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


def capture(folder, source=SOURCE, shared=0.0):
    """Twins; an unsafe prompt's text states lie lower along its category's channel, and along channel 5 by `shared`."""
    generator = torch.Generator().manual_seed(4)
    rows, text = [], torch.randn(2 * COUNT, WIDTH, generator=generator)
    for i in range(COUNT):
        split = "train" if i % 3 else "validation"
        rows += [Row(f"{i}/{label}", label, ("gore", "drugs")[i % 2], f"pair{i}", split) for label in (UNSAFE, SAFE)]
        text[2 * i, i % 2] -= 8
        text[2 * i, 5] -= shared
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
    opened = decision.of(("all",)).opened[:, 0, 0]
    benign = torch.tensor([row.label == SAFE for row in rows])
    gore = torch.tensor([row.label == UNSAFE and row.category == "gore" for row in rows])
    assert float(opened[benign].float().mean()) == pytest.approx(0.1, abs=0.01)
    assert decision.of(("gore",)).opened[gore].all()


def test_diverse_prompts_turn_a_detector_away_from_what_they_vary_in(tmp_path):
    activations = capture(tmp_path / "a", shared=3.0)  # the unsafe prompts also differ along channel 5
    benign = torch.randn(400, WIDTH, generator=torch.Generator().manual_seed(9))
    benign[:, 5] *= 10  # in which harmless prompts of other kinds vary widely
    plain = fit_vector(activations, FitSettings()).vector.detectors
    diverse = fit_vector(activations, FitSettings(), benign=benign).vector.detectors
    assert diverse.benign == COUNT + 400
    for name in plain.categories:
        one, other = (detectors.categories[name] for detectors in (plain, diverse))
        assert abs(float(one.direction[5])) > 0.2
        assert abs(float(other.direction[5])) < 0.05
    alarms = [
        decide(benign[:, None], None, make_gate(detectors, Intervention("clamp", gate="prompt", false_alarm=0.02)))
        for detectors in (plain, diverse)
    ]
    shares = [float(one.of(("all",)).opened.float().mean()) for one in alarms]
    assert shares[0] > 0.2
    assert shares[1] < 0.05
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
