"""Words aligned with words: what is carried is the direction of the words themselves, whatever the captions say."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from portable import SPACE, World, anchor_texts
from safety_steering_pack.safety_steering.alignment.alignment import AnchorStates, Side
from safety_steering_pack.safety_steering.alignment.file import load_alignment, save_alignment
from safety_steering_pack.safety_steering.alignment.fit import NO_WORDS, TargetStates, fit_checked
from safety_steering_pack.safety_steering.alignment.maps import AlignmentSettings
from safety_steering_pack.safety_steering.alignment.report import describe_alignment
from safety_steering_pack.safety_steering.alignment.rule import WORD_SHARE, WORDS
from safety_steering_pack.safety_steering.alignment.transfer import carry_over, transfer
from safety_steering_pack.safety_steering.errors import SafetySteeringError
from safety_steering_pack.safety_steering.language_models.words import Words, find_words
from safety_steering_pack.safety_steering.steering.prompt_gate import decide, make_gate
from safety_steering_pack.safety_steering.vectors.detector import Detectors, make_detector
from safety_steering_pack.safety_steering.vectors.file import load_vector, save_vector
from safety_steering_pack.safety_steering.vectors.vector import Anchors

COUNT, OWN = 120, 60
TEXTS = anchor_texts(COUNT)


class WordWorld(World):
    """Words have facts and maps of their own; a caption's states are those of `World`."""

    def __init__(self) -> None:
        super().__init__()
        self.words_to_source, self.words_to_target = torch.randn(2, 12, 24, generator=self.generator).unbind()
        self.words_to_target = torch.randn(12, 40, generator=self.generator)
        self.keys = [(i, span) for i, text in enumerate(TEXTS) for span in find_words(text)]
        self.word_facts = torch.randn(len(self.keys), 12, generator=self.generator)

    def words(self, to: torch.Tensor) -> Words:
        texts = torch.tensor([text for text, _ in self.keys])
        return Words(texts, torch.tensor([span for _, span in self.keys]), self.word_facts @ to)

    def portable(self):
        """A vector whose directions are of words and whose detectors are of captions."""
        facts = self.facts(COUNT)
        vector = self.vector(facts=facts, texts=TEXTS)
        states = vector.anchors.states
        detectors = {
            name: make_detector(direction.direction[0], states)
            for name, direction in vector.at("source.3").categories.items()
        }
        words = self.words(self.words_to_source)
        categories = {
            name: replace(direction, direction=torch.nn.functional.normalize(-self.words_to_source[i : i + 1], dim=1))
            for i, (name, direction) in enumerate(vector.at("source.3").categories.items())
        }
        point = replace(vector.at("source.3"), categories=categories)
        vector = replace(
            vector,
            hook_points={"source.3": point},
            anchors=Anchors("source.3", TEXTS, states, words),
            detectors=Detectors("source.3", SPACE, detectors, COUNT),
        )
        return vector, facts

    def fit(self, vector, facts, *, words: bool = True, own: bool = True):
        pooled = self.target(facts)
        benign = self.target(self.facts(OWN))
        tokens = torch.randn(400, 12, generator=self.generator) @ self.words_to_target
        target = TargetStates(
            AnchorStates(pooled, pooled),
            Side("conditioning", "umt5xxl.last"),
            benign=AnchorStates(benign, benign) if own else None,
            words=self.words(self.words_to_target) if words else None,
            tokens=tokens if words else None,
        )
        settings = AlignmentSettings()
        return fit_checked(vector, vector.anchors.states, TEXTS, lambda: target, settings, words=vector.anchors.words)


@pytest.fixture(scope="module")
def fitted():
    world = WordWorld()
    vector, facts = world.portable()
    return world, vector, world.fit(vector, facts)


def test_directions_go_over_the_map_of_words_and_detectors_over_the_joint_one(fitted):
    world, vector, alignment = fitted
    assert alignment.words.pairs == len(world.keys)
    assert alignment.words.r2 > 0.95
    carried = transfer(vector, alignment)
    for i, direction in enumerate(carried.at("conditioning").categories.values()):
        true = torch.nn.functional.normalize(-world.words_to_target[i], dim=0)
        assert float(direction.direction[0] @ true) > 0.98
    assert (carried.detectors.hook_point, carried.detectors.space) == ("conditioning", "umt5xxl.last")
    assert carried.detectors.whole_alone


def test_the_carried_gate_opens_on_unsafe_prompts_and_on_no_more_harmless_ones_than_asked(fitted):
    world, vector, alignment = fitted
    carried = carry_over(vector, alignment, 0.2)
    suggestion = carried.info.suggestion
    assert (suggestion.gate, suggestion.false_alarm) == ("prompt", WORDS.false_alarm)
    assert suggestion.token_threshold == WORDS.token_threshold
    assert suggestion.basis_n == OWN
    point = carried.at("conditioning")
    gap = torch.cat([point.categories[name].gap for name in suggestion.mix]).median()
    assert suggestion.strength == pytest.approx(float(WORD_SHARE * point.token_norm / gap), rel=0.05)
    gate = make_gate(carried.detectors, replace_gate(0.01))
    benign, unsafe = world.target(world.facts(300)), world.target(world.facts(100, "violence"))
    opened = decide(unsafe[:, None], None, gate).opened[:, 0, list(gate.categories).index("violence")]
    assert float(opened.float().mean()) > 0.9
    assert float(decide(benign[:, None], None, gate).opened.any(dim=-1).float().mean()) < 0.05


def test_without_own_prompts_the_gate_opens_on_the_share_of_everyday_captions_that_is_asked_for(fitted):
    world, vector, alignment = fitted
    _, facts = world.portable()
    anchors_alone = carry_over(vector, world.fit(vector, facts, own=False), 0.2)
    everyday = world.target(world.facts(600))[:, None]

    def share(carried) -> float:
        return float(
            decide(everyday, None, make_gate(carried.detectors, replace_gate(0.05))).opened[..., 0].float().mean()
        )

    assert 0.02 < share(anchors_alone) < 0.1
    assert share(carry_over(vector, alignment, 0.2)) < 0.02  # own prompts lack much that is harmless


def replace_gate(false_alarm: float):
    from safety_steering_pack.safety_steering.steering.interventions import Intervention

    return Intervention("clamp", "none", "prompt", false_alarm=false_alarm)


def test_everything_survives_the_files(fitted, tmp_path):
    _, vector, alignment = fitted
    again = load_alignment(save_alignment(alignment, tmp_path / "a.safetensors"))
    assert again.sha256 == alignment.sha256
    source = load_vector(save_vector(vector, tmp_path / "v.safetensors"))
    assert source.sha256 == vector.sha256
    carried = carry_over(source, again, 0.2)
    assert carried.sha256 == carry_over(vector, alignment, 0.2).sha256
    loaded = load_vector(save_vector(carried, tmp_path / "c.safetensors"))
    assert loaded.sha256 == carried.sha256
    assert loaded.detectors.whole_alone


def test_a_target_without_words_is_aligned_by_captions_and_says_so(fitted):
    world, vector, _ = fitted
    facts = world.facts(COUNT)
    whole = replace(vector, anchors=replace(vector.anchors, states=world.source(facts)))
    alignment = world.fit(whole, facts, words=False)
    assert alignment.words is None
    assert NO_WORDS in describe_alignment(alignment)
    carried = carry_over(whole, alignment, 0.2)
    assert carried.detectors is None
    assert carried.info.suggestion.gate == "pooled"
    for name, direction in carried.at("conditioning").categories.items():
        found = vector.detectors.categories[name].direction  # those of captions are carried
        moved = alignment.carry(found[None])[0]
        assert float(transfer(whole, alignment).at("conditioning").categories[name].direction[0].double() @ moved) > 0
        assert direction.direction.shape == (1, 40)


def test_words_that_the_vector_reads_as_unsafe_are_refused(fitted):
    world, vector, _ = fitted
    words = vector.anchors.words
    states = words.states.clone()
    states[7] += 40 * world.words_to_source[0]  # far along the first category's direction, from safe to unsafe
    changed = Words(words.texts, words.spans, states)
    target = TargetStates(AnchorStates(torch.zeros(1, 1), torch.zeros(1, 1)), Side("conditioning", "s"))
    with pytest.raises(SafetySteeringError, match=r"1 of \d+ words in the anchors read as unsafe.*\(violence\)"):
        fit_checked(vector, vector.anchors.states, TEXTS, lambda: target, AlignmentSettings(), words=changed)
