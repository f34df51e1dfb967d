"""The bundled prompts: counts, balance, matched lengths, and nothing said twice."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from statistics import fmean

import pytest
from safety_steering_pack.safety_steering.prompts.files import load_prompts
from safety_steering_pack.safety_steering.prompts.prompt_set import SIDES, SPLITS

CATEGORIES = ("hate", "sexual", "violence", "humiliation", "illegal", "disturbing")
MINORS = {"child", "children", "kid", "kids", "boy", "boys", "girl", "girls", "teen", "teenager", "teenagers", "minor"}
MINORS |= {"school", "schoolgirl", "schoolboy", "student", "students", "pupil", "young", "youth", "underage", "toddler"}
GRAPHIC = {
    "blood",
    "bloody",
    "gore",
    "gory",
    "corpse",
    "entrails",
    "genitals",
    "penis",
    "vagina",
    "nipples",
    "dismembered",
}


@pytest.fixture(scope="module")
def pairs(repo_root):
    return load_prompts(repo_root / "vectors" / "prompts" / "safety_pairs.csv")


@pytest.fixture(scope="module")
def anchors(repo_root):
    return load_prompts(repo_root / "vectors" / "prompts" / "benign_anchors.csv")


def words(text: str) -> list[str]:
    return re.findall(r"[\w'-]+", text.casefold())


def test_every_category_has_as_many_pairs_as_the_others(pairs):
    counts = Counter(row.category for row in pairs.rows)
    assert tuple(counts) == CATEGORIES
    assert len(pairs.rows) >= 400
    assert len(set(counts.values())) == 1


def test_every_pair_has_a_safe_and_a_negative_twin(pairs):
    assert all(tuple(row.prompts) == SIDES for row in pairs.rows)
    assert pairs.paired


@pytest.mark.parametrize("category", CATEGORIES)
def test_the_sides_of_a_category_are_equally_long(pairs, category):
    mean = {length.side: length for length in pairs.of_categories([category]).lengths()}
    for side in ("unsafe", "negative"):
        assert mean[side].words == pytest.approx(mean["safe"].words, rel=0.15)
        assert mean[side].characters == pytest.approx(mean["safe"].characters, rel=0.15)


@pytest.mark.parametrize("category", CATEGORIES)
def test_twins_share_the_scene(pairs, category):
    """Only the unsafe element is replaced: twins share more than a third of their words, on average over half."""
    shared = []
    for row in pairs.of_categories([category]).rows:
        unsafe, safe = set(words(row.unsafe)), set(words(row.safe))
        shared.append(len(unsafe & safe) / max(len(unsafe), len(safe)))
    assert min(shared) > 1 / 3
    assert fmean(shared) > 1 / 2


def test_there_are_a_thousand_anchors_over_many_domains(anchors, repo_root):
    lines = (repo_root / "vectors" / "prompts" / "benign_anchors.csv").read_text(encoding="utf-8").splitlines()
    domains = Counter(line.split(",")[1] for line in lines[1:])
    assert len(anchors.rows) == 1000
    assert all(tuple(row.prompts) == ("safe",) for row in anchors.rows)
    assert len(domains) >= 30
    assert max(domains.values()) <= 50


def test_anchors_come_in_many_shapes(anchors):
    counts = [len(words(row.safe)) for row in anchors.rows]
    openings = Counter(words(row.safe)[0] for row in anchors.rows)
    assert min(counts) <= 5
    assert max(counts) >= 20
    assert len(openings) >= 300
    assert openings.most_common(1)[0][1] <= 200


def test_no_prompt_stands_twice_and_none_is_a_pair_and_an_anchor(pairs, anchors):
    texts = [" ".join(words(text)) for row in (*pairs.rows, *anchors.rows) for text in row.prompts.values()]
    assert [text for text, count in Counter(texts).items() if count > 1] == []


def test_no_two_prompts_of_different_rows_are_almost_alike(pairs, anchors):
    """Not one word list multiplied: rows share no more than three quarters of their words."""
    texts = [(row.id, set(words(text))) for row in (*pairs.rows, *anchors.rows) for text in row.prompts.values()]
    holders: dict[str, list[int]] = {}
    for index, (_, content) in enumerate(texts):
        for word in content:
            holders.setdefault(word, []).append(index)
    rare = {word: found for word, found in holders.items() if len(found) <= 60}  # not "a", "the", "in"
    alike = []
    for index, (id, content) in enumerate(texts):
        for other in {other for word in content & rare.keys() for other in rare[word] if other > index}:
            other_id, other_content = texts[other]
            shared = len(content & other_content) / max(len(content), len(other_content))
            if other_id != id and shared > 0.75:
                alike.append((id, other_id))
    assert alike == []


def test_prompts_are_clean_text(pairs, anchors, repo_root):
    for row in (*pairs.rows, *anchors.rows):
        for text in row.prompts.values():
            assert not {unicodedata.category(sign) for sign in text} & {"Cc", "Cf", "Co", "Cs", "Cn"}
            assert text == unicodedata.normalize("NFC", text.strip())
            assert 10 <= len(text) <= 300
    for path in (repo_root / "vectors" / "prompts").glob("*.csv"):
        assert b"\r" not in path.read_bytes()
        assert path.read_bytes().endswith(b"\n")


def test_nothing_is_graphic_and_no_minor_is_in_a_sexual_scene(pairs):
    for row in pairs.rows:
        said = set(words(" ".join(row.prompts.values())))
        assert not said & GRAPHIC, row.id
        assert row.category != "sexual" or not said & MINORS, row.id


def test_the_default_split_has_every_category_in_every_split(pairs):
    drawn = pairs.split()
    assert drawn.shared_between_splits() == 0
    for split in SPLITS:
        counts = Counter(row.category for row in drawn.in_split(split).rows)
        assert set(counts) == set(CATEGORIES)
        assert min(counts.values()) >= 5


def test_the_card_says_what_is_there(pairs, anchors, repo_root):
    card = (repo_root / "vectors" / "prompts" / "README.md").read_text(encoding="utf-8")
    assert "CC0-1.0" in card
    for prompts in (pairs, anchors):
        assert f"{len(prompts.rows)} rows" in card
        assert prompts.sha256 in card, f"the card should give {prompts.name} the sha256 {prompts.sha256}"
