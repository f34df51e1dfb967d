"""Detectors, their file, and the gate `prompt` that they decide."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from damage import change_file
from safety_steering_pack.bridge.steering.settings import recommended_settings
from safety_steering_pack.safety_steering.calibration.space import describe_intervention, parse_intervention
from safety_steering_pack.safety_steering.errors import SafetySteeringError, VectorFileError
from safety_steering_pack.safety_steering.steering.interventions import Intervention, intervene, stack_targets
from safety_steering_pack.safety_steering.steering.prompt_gate import decide, make_gate
from safety_steering_pack.safety_steering.steering.trace import ACTED, CallTrace, HookTrace, RunTrace
from safety_steering_pack.safety_steering.vectors.detector import LEVELS, Detector, Detectors, make_detector
from safety_steering_pack.safety_steering.vectors.file import load_vector, save_vector
from safety_steering_pack.safety_steering.vectors.vector import SafetyVector, Suggestion
from tiny.vectors import random_vector

CATEGORIES = ("violence", "gore", "all")
WIDTH = 8
HOW = Intervention("clamp", "none", "prompt", threshold=-2.0)


def detector(axis: int) -> Detector:
    """Reads channel `axis`; benign prompts have mean 0 and deviation 1 there."""
    return Detector(torch.eye(WIDTH)[axis], torch.tensor(0.0), torch.tensor(1.0), torch.linspace(-4, 0, len(LEVELS)))


def detectors() -> Detectors:
    found = {name: detector(axis) for axis, name in enumerate(CATEGORIES)}
    return Detectors("conditioning", "umt5xxl.last", found, benign=1000)


def vector(**changes) -> SafetyVector:
    plain = random_vector({"conditioning": ("umt5xxl.last", WIDTH)}, categories=CATEGORIES)
    return replace(plain, **({"detectors": detectors()} | changes))


def prompts(*lowest: tuple[float, ...]) -> torch.Tensor:
    """Text states (B, 3, WIDTH) whose mean has these values in the first channels."""
    states = torch.zeros(len(lowest), 3, WIDTH)
    for row, values in enumerate(lowest):
        states[row, 0, : len(values)] = 3 * torch.tensor(values)
    return states


def test_a_category_may_act_where_its_detector_finds_it():
    decision = decide(prompts((-3, 0), (0, -3), (-1, -1)), None, make_gate(detectors(), HOW))
    assert decision.opened[:, 0].tolist() == [[True, False, True], [False, True, True], [False, False, False]]
    assert decision.z[:, 0, :2].tolist() == [[-3, 0], [0, -3], [-1, -1]]
    assert decision.of(("gore",)).opened[:, 0].tolist() == [[False], [True], [False]]


def test_only_the_prompts_own_tokens_count_and_a_prompt_without_tokens_opens_nothing():
    states = torch.full((2, 4, WIDTH), -9.0)
    states[0, :2] = 0
    mask = torch.tensor([[True, True, False, False], [False, False, False, False]])[..., None]
    assert not decide(states, mask, make_gate(detectors(), HOW)).opened.any()
    assert decide(states, None, make_gate(detectors(), HOW)).opened.all()


def test_it_acts_on_the_low_tokens_of_the_prompts_that_it_lets_through():
    targets = stack_targets(vector().at("conditioning"), {"violence": 1.0}, 0).to("cpu", torch.float32)
    u = targets.directions[0]
    h = torch.stack([-5 * u, -1 * u, 5 * u])[None].expand(2, 3, WIDTH)
    opened = torch.tensor([[[True]], [[False]]])
    low = replace(HOW, token_threshold=-2.0)
    for how, moved in ((HOW, [[True, True, False], [False] * 3]), (low, [[True, False, False], [False] * 3])):
        steered, effect = intervene(h, targets, how, 1.0, None, opened)
        assert (steered != h).any(dim=-1).tolist() == moved
        assert float(effect.acted[1]) == 0
    with pytest.raises(SafetySteeringError, match="was not decided"):
        intervene(h, targets, HOW, 1.0)


def test_a_share_of_false_alarms_is_a_quantile_of_the_benign_prompts():
    generator = torch.Generator().manual_seed(0)
    benign, diverse = (torch.randn(4000, WIDTH, generator=generator) * scale for scale in (1.0, 2.0))
    made = make_detector(3 * torch.eye(WIDTH)[0], benign, diverse)
    assert float(made.direction.norm()) == pytest.approx(1)
    for share in (0.001, 0.003, 0.01, 0.15, 0.5):
        below = float((diverse[:, 0] - made.center < made.threshold(share) * made.std).float().mean())
        assert below == pytest.approx(share, abs=0.001 + 0.2 * share)
    assert made.threshold(1e-6) == float(made.quantiles[0])
    for share in (0, 0.6, -1):
        with pytest.raises(SafetySteeringError, match="false alarm"):
            made.threshold(share)
    how = Intervention("clamp", "none", "prompt", false_alarm=0.01)
    shares = dict.fromkeys(CATEGORIES, made)
    gate = make_gate(Detectors("conditioning", "x", shares), how)
    assert gate.threshold.tolist() == pytest.approx([made.threshold(0.01)] * 3)


@pytest.mark.parametrize("benign", [torch.zeros(1, WIDTH), torch.zeros(5, WIDTH)])
def test_no_detector_comes_of_too_few_or_equal_prompts(benign):
    with pytest.raises(SafetySteeringError, match="benign prompts"):
        make_detector(torch.ones(WIDTH), benign)


def test_the_file_keeps_detectors_and_stays_version_1_without_them(tmp_path):
    path = save_vector(vector(), tmp_path / "a.safetensors")
    read = load_vector(path)
    assert read.sha256 == vector().sha256 != vector(detectors=None).sha256
    assert (read.detectors.space, read.detectors.benign) == ("umt5xxl.last", 1000)
    for name, one in detectors().categories.items():
        for tensor, other in zip(vars(one).values(), vars(read.detectors.categories[name]).values(), strict=True):
            assert torch.equal(tensor, other)
    plain = save_vector(vector(detectors=None), tmp_path / "b.safetensors")
    assert b'"format_version":"1"' in plain.read_bytes()
    assert b'"format_version":"2"' in path.read_bytes()
    assert load_vector(plain).detectors is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"detector/gore/direction": torch.ones(WIDTH)}, "not of unit length"),
        ({"detector/gore/std": torch.tensor(0.0)}, "std is not positive"),
        ({"detector/gore/quantiles": torch.arange(9.0).flip(0)}, "quantiles do not ascend"),
        ({"detector/gore/center": torch.zeros(2)}, "center has shape"),
        ({"metadata": {"detectors": '{"hook_point": "block.blocks.0.image", "space": "x"}'}}, "not 'conditioning'"),
        ({"metadata": {"detectors": '{"hook_point": "conditioning"}'}}, "name no space"),
        ({"metadata": {"detectors": '{"hook_point": "conditioning", "space": "x", "benign": "few"}'}}, "wrong kind"),
        ({"metadata": {"detectors": "[]"}}, "detectors"),
    ],
)
def test_damaged_detectors_are_refused(tmp_path, change, words):
    path = save_vector(vector(), tmp_path / "a.safetensors")
    change_file(path, **change)
    with pytest.raises(VectorFileError, match=words):
        load_vector(path)


def test_a_suggestion_can_recommend_the_gate(tmp_path):
    suggestion = Suggestion(
        6.0, ("conditioning",), "clamp", gate="prompt", false_alarm=0.01, token_threshold=-2.0, basis="family default"
    )
    path = save_vector(vector().with_info(suggestion=suggestion), tmp_path / "a.safetensors")
    settings = recommended_settings(load_vector(path))
    assert settings.intervention == Intervention("clamp", "token", "prompt", 0.0, 0.01, -2.0)


def test_its_words_are_read_back():
    how = Intervention("clamp", "none", "prompt", false_alarm=0.02, token_threshold=-1.5)
    assert describe_intervention(how) == "clamp none prompt 0.02 -1.5"
    assert parse_intervention("clamp none prompt 0.02 -1.5") == how
    usual = parse_intervention("clamp none prompt")
    assert (usual.false_alarm, usual.token_threshold) == (0.01, -2.0)
    with pytest.raises(SafetySteeringError, match="token threshold"):
        parse_intervention("clamp prompt 0.01 -2 3")


def test_the_trace_names_what_the_detectors_found():
    hook = HookTrace("conditioning", {}, {}, {}, 0.1, 0.2, {"violence": 4.0, "gore": 3.0}, 0.3, ("violence",))
    run = RunTrace(ACTED, {"intervention": {"gate": "prompt"}}, (CallTrace(1.0, {"positive": 1}, (hook,)),))
    assert run.summary().startswith("Found violence in this prompt (4.0 x the harmless spread). Moved")
