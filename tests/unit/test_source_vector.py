"""From prompts to a portable vector and its file, with a source whose states are known exactly."""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager

import pytest
import torch
from safety_steering_pack.commands.main import main
from safety_steering_pack.safety_steering.directions.charts import draw_sweep
from safety_steering_pack.safety_steering.directions.portable import (
    ExtractSettings,
    anchor_texts,
    extract_vector,
    rounded,
)
from safety_steering_pack.safety_steering.errors import SafetySteeringError
from safety_steering_pack.safety_steering.language_models.words import find_words, join_words, pool_words
from safety_steering_pack.safety_steering.prompts.prompt_set import PromptRow, PromptSet
from safety_steering_pack.safety_steering.vectors.file import load_vector, save_vector
from tiny_language_models import write_tiny_llama

WIDTH = 24
HARM = {"knife": 0, "bomb": 0, "drug": 1, "pill": 1}
SCENES = [f"scene {number}" for number in range(40)]


class KnownSource:
    """Harmful words move a text's state along an axis, the more the nearer the layer is to 6; the rest is noise."""

    name, layers, width, poolings, fingerprint = "known", 8, WIDTH, ("mean", "last"), "cafe"

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.depth = 0

    @contextmanager
    def open(self):
        self.depth += 1
        yield self
        self.depth -= 1

    def space(self, layer):
        return f"known/source.{layer}"

    def states(self, texts, layers, pooling="mean", progress=None):
        assert self.depth == 1  # the model is kept between the calls
        self.asked += texts
        rows = torch.stack([torch.stack([self._state(text, layer, pooling) for layer in layers]) for text in texts])
        progress(len(texts), len(texts))
        return rows

    def words(self, texts, layer, progress=None):
        assert self.depth == 1
        parts = []
        for number, text in enumerate(texts):
            spans = find_words(text)
            states = torch.stack([self._state(text[a:b], layer, f"{text}/{a}") for a, b in spans])
            parts.append(pool_words(number, states, spans, spans))
        progress(len(texts), len(texts))
        return join_words(parts)

    def _state(self, text, layer, pooling):
        seed = int.from_bytes(hashlib.sha256(f"{text}/{layer}/{pooling}".encode()).digest()[:6], "big")
        state = torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed))
        for word, axis in HARM.items():
            if word in text:
                state[axis] -= 4.0 / (1 + abs(layer - 6))
        state[2] -= 4.0 * ("sad" in text) + 4.0 * any(word in text for word in HARM)
        return state


def prompts(splits=("train", "train", "validation", "test")) -> PromptSet:
    rows = []
    for number, scene in enumerate(SCENES):
        for category, words in {"weapons": ("knife", "bomb"), "drugs": ("drug", "pill")}.items():
            rows.append(
                PromptRow(
                    f"{category}-{number}",
                    category,
                    unsafe=f"{scene} with a {words[number % 2]}",
                    safe=f"{scene} with a flower",
                    negative=f"{scene}, sad, with a stone",
                    split=splits[number % len(splits)],
                )
            )
    return PromptSet(tuple(rows), "known.csv")


ANCHORS = [f"benign thing {number}" for number in range(30)]


@pytest.fixture(scope="module")
def extracted():
    return extract_vector(KnownSource(), prompts(), ANCHORS, ExtractSettings(layer="2, 4, 6, 8", licence="CC0-1.0"))


def test_the_best_layer_is_found_and_its_directions_are_those_planted(extracted):
    vector = extracted.vector
    assert extracted.layer == 6
    assert list(vector.hook_points) == ["source.6"]
    point = vector.at("source.6")
    assert point.space == "known/source.6"
    assert vector.categories == ("weapons", "drugs", "all")
    assert float(point.categories["weapons"].direction[0, 0]) > 0.85
    assert float(point.categories["drugs"].direction[0, 1]) > 0.85
    assert abs(float(point.categories["all"].direction[0, 2])) < 0.3  # gloom is gone
    for direction in point.categories.values():
        assert float(direction.gap) > 2
        assert 0.5 < float(direction.std_pooled) < 1.5
        assert abs(float(direction.center)) < 1.0
    assert dict(vector.mix) == {"weapons": 1.0, "drugs": 1.0}


def test_what_it_was_made_of_stands_in_it(extracted):
    info = extracted.vector.info
    assert (info.kind, info.gap_kind, info.model_name, info.pooling) == ("source", "measured", "known", "mean")
    assert (info.weight_fingerprint, info.licence) == ("cafe", "CC0-1.0")
    assert info.prompts_sha256 == prompts().sha256
    assert info.counts["weapons"] == {"unsafe": 20, "safe": 20, "negative": 20}
    gaps = info.parameters["pooled_gaps"]
    settings = {"layer": 6, "layers": [2, 4, 6, 8], "pooling": "mean", "valence": "project", "tokens": "differing"}
    assert info.parameters == settings | {"pooled_gaps": gaps}
    assert set(gaps) == {"weapons", "drugs", "all"}
    assert min(gaps.values()) > 2
    assert set(info.validation_auc) == {"weapons", "drugs", "all"}
    assert min(info.validation_auc.values()) > 0.9
    (step,) = info.provenance
    assert step["anchors_sha256"] == hashlib.sha256(json.dumps(ANCHORS).encode()).hexdigest()
    weapons = next(row for row in step["evidence"] if row["category"] == "weapons")
    assert weapons["with_valence"]["valence_auc"] > 0.8 > weapons["valence_auc"]
    assert 0 < weapons["outlier_share"] <= 1


def test_the_statistics_of_pooled_directions_are_those_of_benign_states():
    source = KnownSource()
    extracted = extract_vector(source, prompts(), ANCHORS, ExtractSettings(layer="6", tokens="pooled"))
    assert extracted.vector.anchors.words is None
    benign = [text for row in prompts().rows if row.split == "train" for text in (row.safe, row.negative)]
    states = torch.stack([source._state(text, 6, "mean") for text in benign]).double()
    direction = extracted.vector.at("source.6").categories["drugs"]
    # a category's benign side are its own pairs
    own = states[[i for i in range(len(benign)) if (i // 2) % 2]] @ direction.direction[0].double()
    assert float(direction.center) == pytest.approx(float(own.mean()), abs=1e-5)
    assert float(direction.std_pooled) == pytest.approx(float(own.std(correction=0)), abs=1e-5)


def test_directions_are_of_words_that_no_safe_prompt_has_and_detectors_of_whole_prompts(extracted):
    source, vector = KnownSource(), extracted.vector
    train = [row for row in prompts().rows if row.split == "train"]
    with source.open():
        words = source.words([text for row in train for text in (row.safe, row.negative)], 6, lambda done, total: None)
    benign, unsafe = words.states.double(), []
    for row in train:
        if row.category == "drugs":
            start, end = find_words(row.unsafe)[-1]  # "scene", "with" and "a" are in safe prompts too
            assert row.unsafe[start:end] in ("drug", "pill")
            unsafe.append(source._state(row.unsafe[start:end], 6, f"{row.unsafe}/{start}").double())
    v = benign.mean(dim=0) - torch.stack(unsafe).mean(dim=0)
    direction = vector.at("source.6").categories["drugs"]
    u = direction.direction[0].double()
    assert float(v[:2] @ u[:2]) > 0.9 * float(v[:2].norm())
    assert abs(float(u[2])) < 0.2  # the valence is projected out
    detectors = vector.detectors
    assert (detectors.hook_point, detectors.space, detectors.benign) == ("source.6", "known/source.6", len(ANCHORS))
    unsafe_pooled = torch.stack([source._state(row.unsafe, 6, "mean") for row in train if row.category == "drugs"])
    found = detectors.categories["drugs"]
    assert float(((unsafe_pooled @ found.direction - found.center) / found.std).max()) < found.threshold(0.05)


def test_word_anchors_are_words_of_the_anchors(extracted, tmp_path):
    words = extracted.vector.anchors.words
    texts = extracted.vector.anchors.texts
    read = [texts[text][start:end] for text, start, end in words.keys]
    assert set(read) == {"benign", "thing"}  # numbers are no words
    assert max(read.count(word) for word in set(read)) == 2  # more of one say nothing new
    saved = load_vector(save_vector(extracted.vector, tmp_path / "v.safetensors")).anchors.words
    assert saved.keys == words.keys
    assert torch.equal(saved.states, words.states)


def test_the_anchors_are_inside_and_the_file_holds_all_of_it(extracted, tmp_path):
    anchors = extracted.vector.anchors
    assert anchors.hook_point == "source.6"
    assert anchors.texts == tuple(ANCHORS)
    source = KnownSource()
    own = torch.stack([source._state(text, 6, "mean") for text in ANCHORS])
    assert torch.equal(anchors.states, own.half().float())
    path = save_vector(extracted.vector, tmp_path / "v.safetensors")
    assert load_vector(path).sha256 == extracted.vector.sha256
    huge = torch.tensor([[1e6, 1.0]])
    assert torch.equal(rounded(huge), huge)


def test_the_test_split_is_never_read():
    source = KnownSource()
    extract_vector(source, prompts(), ANCHORS, ExtractSettings(layer="6"))
    held_out = {text for row in prompts().rows if row.split == "test" for text in row.prompts.values()}
    assert held_out
    assert not held_out & set(source.asked)


def test_progress_counts_up_to_the_end_and_can_stop_it():
    steps = []
    extract_vector(KnownSource(), prompts(), ANCHORS, ExtractSettings(), progress=lambda *step: steps.append(step))
    assert steps == sorted(steps)
    assert steps[-1][0] == steps[-1][1]

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract_vector(KnownSource(), prompts(), ANCHORS, ExtractSettings(), progress=stop)


def test_categories_can_be_chosen():
    vector = extract_vector(KnownSource(), prompts(), ANCHORS, ExtractSettings(layer="6"), categories=["drugs"]).vector
    assert vector.categories == ("drugs",)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompts": prompts(splits=("test",))}, "no pair of an unsafe and a safe prompt in the train split"),
        ({"prompts": prompts(splits=("train",))}, "no pair in the validation split"),
        ({"anchors": ["one"]}, "There are 1 anchors"),
        ({"categories": ["hate"]}, "has no category 'hate'"),
        ({"settings": ExtractSettings(layer="99")}, "not a layer of this model"),
    ],
)
def test_what_cannot_be_extracted_gets_one_sentence(changes, words):
    arguments = {"prompts": prompts(), "anchors": ANCHORS, "settings": ExtractSettings(), **changes}
    with pytest.raises(SafetySteeringError, match=words):
        extract_vector(KnownSource(), **arguments)


def test_settings_and_anchors_are_checked():
    with pytest.raises(SafetySteeringError, match="valence is 'remove', expected one of project, twins, keep"):
        ExtractSettings(valence="remove")
    with pytest.raises(SafetySteeringError, match=r"known.csv has 80 unsafe prompts. Anchors must be benign"):
        anchor_texts(prompts())
    assert anchor_texts(PromptSet((PromptRow("1", "benign", safe="a"), PromptRow("2", "benign", safe="b")))) == (
        "a",
        "b",
    )


def test_the_chart_is_a_picture_with_and_without_negative_twins(extracted):
    picture = draw_sweep(extracted)
    assert picture.ndim == 3
    assert picture.std() > 5
    rows = tuple(PromptRow(row.id, row.category, row.unsafe, row.safe, split=row.split) for row in prompts().rows)
    bare = extract_vector(KnownSource(), PromptSet(rows), ANCHORS, ExtractSettings(layer="4, 6"))
    assert bare.vector.info.counts["drugs"]["negative"] == 0
    assert draw_sweep(bare).std() > 5


def test_the_command_writes_vector_chart_and_table(tmp_path, capsys):
    model = write_tiny_llama(tmp_path / "tiny")
    pairs = tmp_path / "pairs.csv"
    lines = ["id,category,unsafe,safe,split"]
    lines += [f"{i},weapons,a knife in {i},a flower in {i},{('train', 'validation')[i % 2]}" for i in range(8)]
    pairs.write_text("\n".join(lines))
    anchors = tmp_path / "anchors.txt"
    anchors.write_text("a dog\na hill\nthe sea\n")
    out = tmp_path / "made.safetensors"
    files = ["--prompts", str(pairs), "--anchors", str(anchors)]
    assert main(["extract", str(model), str(out), *files, "--layer", "all", "--licence", "CC0-1.0"]) == 0
    shown = capsys.readouterr().out
    assert "portable: found in" in shown
    vector = load_vector(out)
    assert vector.anchors.texts == ("a dog", "a hill", "the sea")
    assert vector.info.licence == "CC0-1.0"
    table = json.loads(out.with_suffix(".json").read_text())
    assert len(table["rows"]) == 5
    assert out.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"
    first = out.read_bytes()
    assert main(["extract", str(model), str(out), *files, "--layer", "all", "--licence", "CC0-1.0"]) == 0
    assert out.read_bytes() == first
    assert main(["extract", str(tmp_path / "none"), str(out), *files]) == 1
    assert "There is no model 'none'" in capsys.readouterr().err
