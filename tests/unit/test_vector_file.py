"""The vector's file: what is written is what is read, bit for bit; what cannot be used is refused in one sentence."""

from __future__ import annotations

import math
import os
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from damage import change_file
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safety_steering_pack.safety_steering.errors import MismatchError, SafetySteeringError, VectorFileError
from safety_steering_pack.safety_steering.files import file_sha256, write_atomically
from safety_steering_pack.safety_steering.vectors.file import load_vector, read_label, save_vector
from safety_steering_pack.safety_steering.vectors.vector import (
    BASES,
    STATISTICS,
    Anchors,
    SafetyVector,
    Suggestion,
    VectorInfo,
)
from tiny.vectors import random_vector
from vector_algebra import select

SPACES = {"conditioning": ("umt5xxl.last", 8), "block.blocks.2.image": ("tiny/block.blocks.2.image", 6)}

texts = st.text(max_size=20)
numbers = st.floats(allow_nan=False, allow_infinity=False)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
infos = st.builds(
    VectorInfo,
    kind=st.sampled_from(["source", "native", "transferred"]),
    gap_kind=st.sampled_from(["measured", "estimated"]),
    family=texts,
    model_name=texts,
    weight_fingerprint=texts,
    block_counts=st.dictionaries(texts, st.integers(1, 99), max_size=2),
    pooling=texts,
    window=st.tuples(st.floats(0, 0.4), st.floats(0.5, 1)),
    branch=texts,
    method=texts,
    parameters=st.dictionaries(texts, plain, max_size=2),
    counts=st.dictionaries(texts, st.dictionaries(texts, st.integers(), max_size=2), max_size=2),
    prompts_sha256=texts,
    validation_auc=st.dictionaries(texts, st.floats(0, 1), max_size=2),
    suggestion=st.builds(
        Suggestion,
        strength=numbers,
        hook_points=st.lists(texts, max_size=2).map(tuple),
        intervention=texts,
        mix=st.dictionaries(st.sampled_from(["violence", "gore"]), st.floats(-50, 50, width=32), max_size=2),
        norm=texts,
        gate=texts,
        threshold=numbers,
        false_alarm=st.floats(0, 1),
        window=st.tuples(st.floats(0, 0.4), st.floats(0.5, 1)),
        branch=texts,
        strengths=st.dictionaries(texts, numbers, max_size=2),
        basis=st.sampled_from(BASES),
        basis_model=texts,
        basis_judge=texts,
        basis_n=st.integers(0, 10**6),
    ),
    validated_on=st.lists(texts, max_size=2).map(tuple),
    licence=texts,
    provenance=st.lists(st.dictionaries(texts, plain, max_size=2), max_size=2).map(tuple),
)


def vector(**options: Any) -> SafetyVector:
    return random_vector(SPACES, family="wan", block_counts={"blocks": 4}, **options)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "vector.safetensors"


@given(infos, st.integers(1, 3), st.integers(0, 1000), st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_saved_is_what_is_loaded_bit_for_bit(path, info, bins, seed, portable):
    generator = torch.Generator().manual_seed(seed)
    edges = [0.1 * edge for edge in range(bins + 1)]
    first = vector(categories=("violence", "gore"), sigma_edges=edges, seed=seed)
    states = torch.randn(3, 8, generator=generator)
    anchors = Anchors("conditioning", ("a dog", "", "Straße \U0001f600"), states) if portable else None
    saved = SafetyVector(first.hook_points, info, anchors=anchors)
    loaded = load_vector(save_vector(saved, path))
    assert loaded.info == saved.info
    assert loaded.mix == saved.mix
    assert (loaded.anchors.texts if loaded.anchors else None) == (anchors.texts if anchors else None)
    before, after = saved.tensors(), loaded.tensors()
    assert set(before) == set(after)
    for name, tensor in before.items():
        assert torch.equal(tensor.view(torch.int32), after[name].view(torch.int32)), name
    assert loaded.sha256 == saved.sha256
    assert [*loaded.hook_points] == [*saved.hook_points]
    assert {name: point.space for name, point in loaded.hook_points.items()} == {n: s for n, (s, _) in SPACES.items()}


def test_the_hash_is_of_the_content_and_not_of_the_mix():
    one = vector(categories=("violence", "gore"))
    assert one.sha256 == vector(categories=("violence", "gore")).sha256
    assert one.with_mix({"gore": 0.5}).sha256 == one.sha256
    assert one.sha256 != vector(categories=("violence", "gore"), seed=1).sha256
    assert one.sha256 != one.with_info(licence="other").sha256


def test_unknown_metadata_and_tensors_are_ignored(path):
    saved = vector()
    save_vector(saved, path)
    change_file(path, metadata={"from_the_future": "{"}, unheard_of=torch.ones(3))
    assert load_vector(path).sha256 == saved.sha256


def test_a_minimal_file_is_enough(path):
    save_vector(vector(), path)
    kept = ("format", "format_version", "kind", "gap_kind", "spaces", "categories")
    change_file(path, metadata={field.name: None for field in fields(VectorInfo) if field.name not in kept})
    assert load_vector(path).info == VectorInfo("native", "estimated")


def test_half_precision_tensors_are_read_as_float32(path):
    saved = vector()
    save_vector(saved, path)
    change_file(path, **{name: tensor.half() for name, tensor in saved.tensors().items()})
    assert {tensor.dtype for tensor in load_vector(path).tensors().values()} == {torch.float32}


METADATA_CASES = {
    "another format": ({"format": "lora"}, "not a safety vector .its format is 'lora'.. Choose a file made by Save"),
    "no format": ({"format": None}, "its format is 'not given'"),
    "newer version": ({"format_version": "3"}, "has format version 3; this pack reads versions 1 to 2. Update"),
    "version in words": ({"format_version": "one"}, "format version one"),
    "no kind": ({"kind": None}, "lacks the metadata kind. The file was not written whole"),
    "no spaces and categories": ({"spaces": None, "categories": None}, "lacks the metadata spaces, categories"),
    "unknown kind": ({"kind": "magic"}, "kind is 'magic', expected one of source, native, transferred"),
    "unknown gap kind": ({"gap_kind": "guessed"}, "gap_kind is 'guessed'"),
    "spaces no object": ({"spaces": "[]"}, "'spaces' does not read as a JSON dict"),
    "categories no list": ({"categories": "{"}, "'categories' does not read as a JSON list"),
    "a step of provenance that is no object": (
        {"provenance": "[null]"},
        "'provenance' must hold one JSON object a step",
    ),
    "a category that is no name": ({"categories": "[3]"}, "must hold names"),
    "no category": ({"categories": "[]"}, "not all have the same, non-empty categories"),
    "a category too many": ({"categories": '["violence", "gore"]'}, "tensor conditioning/gore/direction is missing"),
    "a space too many": ({"spaces": '{"source.3": "x"}'}, "tensor source.3/sigma_edges is missing"),
    "no space": ({"spaces": '{"conditioning": ""}'}, "conditioning names no space"),
    "an infinite count": ({"block_counts": '{"blocks": Infinity}'}, "a value of the wrong kind"),
    "a number too large": ({"suggestion": f'{{"strength": 1{"0" * 400}}}'}, "a value of the wrong kind"),
    "strength NaN": ({"suggestion": '{"strength": NaN}'}, "the suggested strength is not a finite number"),
    "mix NaN": ({"suggestion": '{"mix": {"violence": NaN}}'}, "not a finite number"),
    "mix unknown": ({"suggestion": '{"mix": {"hate": 1}}'}, "names 'hate', which this vector lacks"),
    "mix too strong": ({"suggestion": '{"mix": {"violence": 51}}'}, "Weights go from -50 to 50"),
    "window of three": ({"window": "[0, 0.5, 1]"}, "a value of the wrong kind"),
    "half a surrogate pair": ({"spaces": '{"conditioning": "\\ud800"}'}, "'spaces' does not read as a JSON dict"),
    "nested a thousand times": ({"provenance": "[" * 999 + "]" * 999}, "'provenance' does not read as a JSON list"),
    "a very long list": ({"provenance": f"[{'{},' * 60_000}{{}}]"}, "'provenance' holds more than 50000 items"),
}


@pytest.mark.parametrize(("metadata", "words"), METADATA_CASES.values(), ids=METADATA_CASES)
def test_metadata_that_cannot_be_used_is_refused(path, metadata, words):
    save_vector(vector(), path)
    change_file(path, metadata=metadata)
    with pytest.raises(VectorFileError, match=f"^vector.safetensors: .*{words}"):
        load_vector(path)


ONE = torch.ones(1)
TENSOR_CASES = {
    "missing": ("conditioning/violence/gap", None, "the tensor conditioning/violence/gap is missing"),
    "NaN": ("conditioning/violence/center", ONE * math.nan, "holds NaN or infinite values"),
    "infinite": ("conditioning/token_norm", ONE * math.inf, "holds NaN or infinite values"),
    "not of unit length": ("conditioning/violence/direction", torch.ones(1, 8), "is not of unit length"),
    "all zero": ("conditioning/violence/direction", torch.zeros(1, 8), "is not of unit length"),
    "flat": ("conditioning/violence/direction", torch.ones(8) / 8**0.5, "direction has shape"),
    "a single number": ("conditioning/violence/direction", torch.tensor(1.0), "direction has shape"),
    "too many rows": ("conditioning/violence/direction", torch.eye(8)[:2], "direction has shape"),
    "no channels": ("conditioning/violence/direction", torch.zeros(1, 0), "direction has shape"),
    "integers": ("conditioning/violence/gap", torch.ones(1, dtype=torch.int64), "gap is I64 of shape"),
    "complex": ("conditioning/violence/gap", ONE.to(torch.complex64), "gap is C64 of shape"),
    "three dimensions": ("conditioning/violence/direction", torch.ones(1, 1, 8), "of shape .1, 1, 8., expected F32"),
    "two gaps": ("conditioning/violence/gap", torch.ones(2), "gap has shape .2,., expected .1,."),
    "a negative gap": ("conditioning/violence/gap", -ONE, "gap is negative"),
    "a negative deviation": ("conditioning/violence/std_token", -ONE, "std_token is negative"),
    "edges that fall": ("conditioning/sigma_edges", torch.tensor([1.0, 0.0]), "are not 2 ascending values"),
    "an edge too many": ("conditioning/sigma_edges", torch.arange(3.0), "are not 2 ascending values"),
    "anchors without texts": ("anchors/activations", torch.ones(2, 8), "'anchor_texts' does not read as a JSON list"),
}


@pytest.mark.parametrize(("name", "tensor", "words"), TENSOR_CASES.values(), ids=TENSOR_CASES)
def test_tensors_that_cannot_be_used_are_refused(path, name, tensor, words):
    save_vector(vector(), path)
    change_file(path, **{name: tensor})
    with pytest.raises(VectorFileError, match=f"^vector.safetensors: .*{words}"):
        load_vector(path)


def test_files_that_are_no_safetensors_files_are_refused(path, tmp_path):
    whole = save_vector(vector(), path).read_bytes()
    for data, words in {
        b"": "its header claims 0 bytes of 0",
        b"PK\x03\x04 a zip file of some sort": "its header claims",
        whole[: len(whole) // 2]: "claims|cannot be read|not a readable",
        whole[:-1]: "not a readable safetensors file",
        (2 * 1024**3).to_bytes(8, "little") + whole[8:]: "its header claims 2147483648 bytes of",
    }.items():
        path.write_bytes(data)
        with pytest.raises(VectorFileError, match=words):
            load_vector(path)
    with pytest.raises(VectorFileError, match=r"missing.safetensors: the file does not exist"):
        load_vector(tmp_path / "missing.safetensors")
    with pytest.raises(VectorFileError, match="not a"):
        load_vector(tmp_path)


def test_the_label_says_what_a_file_fits_without_its_tensors(path):
    save_vector(vector(), path)
    assert read_label(path) == "wan, umt5xxl.last +1"
    suggestion = Suggestion(hook_points=("block.blocks.2.image",))
    save_vector(vector().with_info(model_name="wan2.1-1.3b", suggestion=suggestion), path)
    assert read_label(path) == "wan2.1-1.3b, tiny/block.blocks.2.image +1"
    change_file(path, metadata={"window": "3"})
    with pytest.raises(VectorFileError, match=r"^vector.safetensors: the metadata 'window'"):
        read_label(path)


def test_saving_is_whole_or_not_at_all(path, tmp_path, monkeypatch):
    first = save_vector(vector(), path)
    digest = file_sha256(first)
    with pytest.raises(FileExistsError, match=r"vector.safetensors exists already"):
        save_vector(vector(seed=1), path, overwrite=False)
    with pytest.raises(VectorFileError, match=r"'vector.bin' must end in .safetensors"):
        save_vector(vector(), tmp_path / "vector.bin")

    def full_disk(descriptor: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_vector(vector(seed=1), path)
    assert file_sha256(path) == digest
    assert [file.name for file in tmp_path.iterdir()] == [path.name]  # no temporary file is left


@pytest.mark.parametrize(
    ("count", "text", "words"), [(60_000, "a", "more than 50000 items"), (20_000, "a" * 200, "texts")]
)
def test_what_would_be_refused_on_loading_is_not_written(path, count, text, words):
    vector = replace(random_vector(SPACES), anchors=Anchors("conditioning", (text,) * count, torch.zeros(count, 8)))
    with pytest.raises(VectorFileError, match=words):
        save_vector(vector, path)
    assert not path.exists()


def test_writing_makes_the_folder(tmp_path):
    assert write_atomically(tmp_path / "a" / "b.txt", b"text").read_bytes() == b"text"


def test_a_vector_is_frozen_and_checked_when_made():
    one = vector()
    with pytest.raises(TypeError):
        one.hook_points["conditioning"] = one.at("block.blocks.2.image")
    with pytest.raises(TypeError):
        one.mix["violence"] = 2.0
    with pytest.raises(SafetySteeringError, match="it has no hook point"):
        SafetyVector({}, one.info)
    with pytest.raises(SafetySteeringError, match="is not a hook point"):
        SafetyVector({"somewhere": one.at("conditioning")}, one.info)
    point = one.at("conditioning")
    for name in ("a=b", "a,b", "a/b", " ", ""):
        renamed = replace(point, categories={name: point.categories["violence"]})
        with pytest.raises(SafetySteeringError, match="is not a valid category name"):
            SafetyVector({"conditioning": renamed}, one.info)
    doubled = replace(point.categories["violence"], **{name: torch.ones(1).double() for name in STATISTICS})
    with pytest.raises(SafetySteeringError, match=r"torch.float64, expected torch.float32"):
        SafetyVector({"conditioning": replace(point, categories={"violence": doubled})}, one.info)
    with pytest.raises(MismatchError, match=r"no hook point 'clip_vision'. It has: conditioning, block.blocks.2.image"):
        one.at("clip_vision")


def test_a_sigma_bin_holds_from_its_edge_on_and_the_outer_ones_beyond_their_ends():
    point = vector(sigma_edges=(0.0, 0.25, 0.5, 1.0)).at("conditioning")
    sigmas = {-1.0: 0, 0.0: 0, 0.24: 0, 0.25: 1, 0.49: 1, 0.5: 2, 1.0: 2, 14.6: 2}
    assert {sigma: point.bin_of(sigma) for sigma in sigmas} == sigmas
    assert vector().at("conditioning").bin_of(0.7) == 0
    assert point.bins == 3


def portable(**changes: Any) -> SafetyVector:
    """A vector with anchors, some of their fields changed."""
    fields = {"hook_point": "conditioning", "texts": ("a dog", "a hill"), "states": torch.arange(16.0).reshape(2, 8)}
    return replace(vector(), anchors=Anchors(**{**fields, **changes}))


def test_anchors_are_kept_in_half_precision_where_that_loses_nothing(path):
    for scale, dtype in ((1.0, torch.float16), (1 / 3, torch.float32), (1e6, torch.float32)):
        saved = portable(states=torch.arange(16.0).reshape(2, 8) * scale)
        with safe_open(save_vector(saved, path), framework="pt") as file:
            assert file.get_tensor("anchors/activations").dtype == dtype
        loaded = load_vector(path)
        assert torch.equal(loaded.anchors.states, saved.anchors.states)
        assert loaded.sha256 == saved.sha256


def test_the_hash_is_of_the_anchors_too():
    hashes = {
        vector().sha256,
        portable().sha256,
        portable(texts=("a dog", "a hall")).sha256,
        portable(states=torch.ones(2, 8)).sha256,
    }
    assert len(hashes) == 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hook_point": "source.3"}, "anchors were taken at 'source.3', where it has no directions"),
        ({"hook_point": "block.blocks.2.image"}, r"anchors have shape \(2, 8\), expected \(2, 6\)"),
        ({"texts": ("a dog",)}, r"anchors have shape \(2, 8\), expected \(1, 8\)"),
        ({"texts": (), "states": torch.zeros(0, 8)}, r"anchors have shape \(0, 8\)"),
        ({"states": torch.zeros(16)}, r"anchors have shape \(16,\)"),
        ({"states": torch.full((2, 8), math.nan)}, "anchors/activations holds NaN"),
        ({"states": torch.zeros(2, 8).double()}, "anchors/activations is torch.float64"),
    ],
)
def test_anchors_that_cannot_be_used_are_refused(changes, words):
    with pytest.raises(SafetySteeringError, match=words):
        portable(**changes)


def test_anchors_that_cannot_be_used_are_refused_on_loading(path):
    for metadata, words in {
        '["a dog"]': r"anchors have shape \(2, 8\), expected \(1, 8\)",
        "{}": "'anchor_texts' does not read as a JSON list",
    }.items():
        save_vector(portable(), path)
        change_file(path, metadata={"anchor_texts": metadata})
        with pytest.raises(VectorFileError, match=words):
            load_vector(path)
    save_vector(portable(), path)
    change_file(path, metadata={"anchor_hook_point": "clip_vision"})
    with pytest.raises(VectorFileError, match="anchors were taken at 'clip_vision'"):
        load_vector(path)
    change_file(path, metadata={"anchor_hook_point": None})  # then they are the first hook point's
    assert load_vector(path).anchors.hook_point == "conditioning"


def test_anchors_stay_with_their_hook_point():
    kept = select(portable(), hook_points=("conditioning",))
    assert kept.anchors.texts == ("a dog", "a hill")
    assert select(portable(), hook_points=("block.blocks.2.image",)).anchors is None


def test_the_same_vector_gives_the_same_bytes(path):
    written = {save_vector(portable(), path).read_bytes() for _ in range(5)}
    assert len(written) == 1
