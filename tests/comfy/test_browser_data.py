"""The routes that the browser asks: true of the files, read-only, and blind to whatever no picker offers."""

from __future__ import annotations

import hashlib
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from comfy_server import ComfyServer
from guarded import PolicyRule
from safety_steering_pack.safety_steering.files import file_sha256
from safety_steering_pack.safety_steering.vectors.file import save_vector
from steered_graphs import FAMILIES, put_vector, random_file
from tiny.models import TINY_MODELS


def ask(server: ComfyServer, route: str, **question: str) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"{server.address}/safety_steering/{route}?{urlencode(question)}") as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def hook_points_of(server: ComfyServer, name: str, kind: str, hook_points: str = "auto") -> dict[str, Any]:
    model = TINY_MODELS[kind].file_name
    asked = {"name": name, "hook_points": hook_points, "folder": "diffusion_models", "model": model}
    return ask(server, "hook_points", **asked)[1]


def test_a_card_says_what_the_file_is(server):
    name = random_file(server, "wan")
    path = server.models / "safety_vectors" / name
    status, card = ask(server, "vector", name=f"{name} (whatever its label says)")
    assert status == 200
    assert card["file"] == name
    assert card["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (card["family"], card["categories"], card["licence"]) == ("wan", ["violence"], "Apache-2.0")
    assert card["spaces"][0] == "wan-4x32-16ch/block.blocks.2.image"
    assert card["suggested"]["hook_points"] == ["block.blocks.2.image"]
    assert card["measured_on"] == []


@pytest.mark.parametrize(
    "name", ["", "nowhere.safetensors", "../diffusion_models/x.safetensors", "/etc/passwd", "..", "a\0b", "x" * 5000]
)
def test_what_no_picker_offers_is_not_read(server, name):
    for route in ("vector", "hook_points"):
        status, answer = ask(server, route, name=name or " ")
        assert status == 404
        assert "was not found" in answer["problem"]


def test_a_damaged_file_is_told_in_a_sentence(server):
    (server.models / "safety_vectors" / "damaged.safetensors").write_bytes(b"\0" * 40)
    status, answer = ask(server, "vector", name="damaged.safetensors")
    assert status == 404
    assert "damaged.safetensors" in answer["problem"]


def test_a_vector_that_fits_has_no_problem(server):
    found = hook_points_of(server, random_file(server, "wan"), "wan21_t2v")
    assert found["problem"] == ""
    assert found["blocks"] == [{"list": "blocks", "count": 4, "steered": [2], "reads": []}]
    assert found["states"] == []
    everywhere = hook_points_of(server, random_file(server, "wan"), "wan21_t2v", "all")
    assert everywhere["blocks"][0]["steered"] == [0, 1, 2, 3]
    assert everywhere["states"] == ["conditioning"]
    read = hook_points_of(server, random_file(server, "wan", reads=True), "wan21_t2v", "cross_attention")
    assert read["problem"] == ""
    assert read["blocks"] == [{"list": "blocks", "count": 4, "steered": [], "reads": [0, 1, 2, 3]}]
    assert read["states"] == []


@pytest.mark.parametrize(
    ("vector", "model", "choice", "why"),
    [
        ("ltxv", "wan21_t2v", "auto", "(family ltxv, 4 transformer_blocks). This model is wan"),
        ("wan", "ltxv", "auto", "(family wan, 4 blocks). This model is ltxv"),
        ("wan", "flux", "conditioning", "space umt5xxl.last (4096 wide). This model (flux) has t5xxl.last"),
        ("wan", "wan21_t2v", "block.blocks.9.image", "no hook point"),
    ],
)
def test_a_vector_that_does_not_fit_is_told_before_the_run(server, vector, model, choice, why):
    assert why in hook_points_of(server, random_file(server, vector), model, choice)["problem"]


def test_what_the_browser_says_of_a_fit_is_what_a_run_says(server):
    """A vector at every place of each family's model, against the model files themselves: no false alarm."""
    kinds = {"wan": "wan21_t2v", "wan_i2v": "wan21_i2v", "wan22": "wan22_ti2v", "ltxv": "ltxv", "flux": "flux"}
    for family, kind in kinds.items():
        vector = put_vector(server, f"fit_{family}", FAMILIES[family].vector(reads=True))
        assert hook_points_of(server, vector, kind, "all")["problem"] == "", family


def test_a_source_vector_is_told_to_need_an_alignment(server):
    vector = FAMILIES["wan"].vector().with_info(kind="source")
    found = hook_points_of(server, put_vector(server, "source", vector), "wan21_t2v")
    assert "Transfer Direction from LLM" in found["problem"]


def test_a_model_that_no_loader_offers_is_not_opened(server):
    name = random_file(server, "wan")
    for folder, model in (("../user", "x"), ("diffusion_models", "../../server.log"), ("loras", "x"), ("", "")):
        status, found = ask(server, "hook_points", name=name, folder=folder, model=model)
        assert status == 200
        assert found["model"] is None
        assert found["blocks"] == [{"list": "blocks", "count": 4, "steered": [2], "reads": []}]


def test_without_a_vector_the_model_alone_is_described(server):
    found = hook_points_of(server, "", "ltxv", "conditioning")
    assert found["states"] == ["conditioning"]
    assert found["blocks"] == [{"list": "transformer_blocks", "count": 4, "steered": [], "reads": []}]


def test_a_guarded_server_describes_only_vectors_that_clients_may_load(guarded, tmp_path: Path):
    listed, hidden = random_file(guarded, "wan"), random_file(guarded, "ltxv")
    sha256 = file_sha256(guarded.models / "safety_vectors" / listed)
    guarded.set_policy((PolicyRule(),), allow={"vectors": [sha256]}, permits={"unlisted_vectors": False})
    assert ask(guarded, "vector", name=listed)[0] == 200
    for route in ("vector", "hook_points"):
        status, answer = ask(guarded, route, name=hidden)
        assert status == 404
        assert "not described on this server" in answer["problem"]
    save_vector(FAMILIES["wan"].vector(), tmp_path / "policy_only.safetensors")
    assert ask(guarded, "vector", name=str(tmp_path / "policy_only.safetensors"))[0] == 404
    guarded.write_policy("this is no policy")
    assert ask(guarded, "vector", name=listed)[0] == 404
