"""The alignment's file comes back bit for bit, and a damaged one is told in a sentence."""

from __future__ import annotations

import json

import pytest
import torch
from portable import World
from safetensors import safe_open
from safetensors.torch import save_file
from safety_steering_pack.safety_steering.alignment.alignment import AnchorStates, Side
from safety_steering_pack.safety_steering.alignment.file import load_alignment, save_alignment
from safety_steering_pack.safety_steering.alignment.fit import fit_alignment
from safety_steering_pack.safety_steering.alignment.maps import METHODS
from safety_steering_pack.safety_steering.errors import VectorFileError
from safety_steering_pack.safety_steering.vectors.file import load_vector

SOURCE = Side("source.3", "tinylm/source.3", "tinylm")


@pytest.fixture(scope="module")
def fitted():
    world = World()
    facts = world.facts(60)
    pooled = world.target(facts)
    return {
        method: fit_alignment(
            world.source(facts),
            AnchorStates(pooled, pooled + 1),
            method,
            source_side=SOURCE,
            target_side=Side("block.blocks.1.image", "m/block.blocks.1.image", "m", "wan", "f00", {"blocks": 4}),
            texts=["a", "b"],
            about={"notes": ["a note"]},
        )
        for method in METHODS
    }


@pytest.mark.parametrize("method", METHODS)
def test_it_comes_back_bit_for_bit(fitted, method, tmp_path):
    again = load_alignment(save_alignment(fitted[method], tmp_path / "a.safetensors"))
    assert again.sha256 == fitted[method].sha256
    assert again.facts() == fitted[method].facts()
    v = torch.ones(2, 24)
    assert torch.equal(again.carry(v), fitted[method].carry(v))


def test_an_older_file_of_an_encoder_layer_leads_to_where_apply_steers(tmp_path):
    world = World()
    facts = world.facts(60)
    target = Side("source.12", "t5xxl/source.12", "t5xxl")
    older = fit_alignment(world.source(facts), world.target(facts), source_side=SOURCE, target_side=target)
    again = load_alignment(save_alignment(older, tmp_path / "a.safetensors"))
    assert (again.target.hook_point, again.target.space) == ("encoder.12", "t5xxl/encoder.12")
    assert (again.source.hook_point, again.source.space) == ("source.3", "tinylm/source.3")


def parts(path):
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118 (no mapping)


def test_damage_is_told_in_one_sentence(fitted, tmp_path):
    path = save_alignment(fitted["ridge"], tmp_path / "whole.safetensors")

    def damaged(change):
        tensors, metadata = parts(path)
        facts = json.loads(metadata["facts"])
        change(tensors, metadata, facts)
        if "facts" in metadata:
            metadata["facts"] = json.dumps(facts)
        save_file({name: t.contiguous() for name, t in tensors.items()}, tmp_path / "bad.safetensors", metadata)
        return tmp_path / "bad.safetensors"

    def without(name):
        return lambda tensors, metadata, facts: tensors.pop(name)

    def with_nan(tensors, metadata, facts):
        tensors["map/matrix"][0, 0] = torch.nan

    def narrow(tensors, metadata, facts):
        tensors["target/pooled"] = tensors["target/pooled"][:, :5]

    def half(tensors, metadata, facts):
        tensors["map/matrix"] = tensors["map/matrix"].half()

    def scale_zero(tensors, metadata, facts):
        tensors["source/scale"][0] = 0

    def fact(name, value):
        return lambda tensors, metadata, facts: facts.__setitem__(name, value)

    def meta(name, value):
        return lambda tensors, metadata, facts: metadata.__setitem__(name, value)

    for change, message in (
        (without("map/matrix"), "map/matrix is missing"),
        (without("target/token"), "target/token is missing"),
        (with_nan, "finite"),
        (narrow, "target/pooled"),
        (half, "F16"),
        (scale_zero, "scale is not above 0"),
        (fact("map_kind", "cubic"), "is not valid"),
        (fact("beta", -1.0), "beta is -1.0"),
        (fact("beta", "x"), "bad.safetensors"),
        (fact("source", {}), "facts are incomplete or invalid"),
        (fact("settings", {"method": "guess"}), "is none of"),
        (fact("target", None), "facts are incomplete or invalid"),
        (meta("format", "safety_vector"), "not a safety alignment"),
        (meta("format_version", "2"), "Update Safety Steering"),
        (lambda tensors, metadata, facts: metadata.pop("facts"), "'facts'"),
    ):
        with pytest.raises(VectorFileError, match=message) as caught:
            load_alignment(damaged(change))
        assert str(caught.value).startswith("bad.safetensors: ")
        assert len(str(caught.value)) < 700


def test_other_files_are_told_apart(fitted, tmp_path):
    path = save_alignment(fitted["ridge"], tmp_path / "a.safetensors")
    with pytest.raises(VectorFileError, match="not a safety vector"):
        load_vector(path)
    (tmp_path / "text.safetensors").write_text("no tensors")
    for name in ("text.safetensors", "missing.safetensors"):
        with pytest.raises(VectorFileError):
            load_alignment(tmp_path / name)
    with pytest.raises(VectorFileError, match="must end in"):
        save_alignment(fitted["ridge"], tmp_path / "a.bin")
    with pytest.raises(FileExistsError):
        save_alignment(fitted["ridge"], path, overwrite=False)
