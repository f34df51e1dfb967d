"""`python -m safety_steering fit`, and the graphs that `capture` and `calibrate` send."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import torch
from safety_steering_pack.commands.api_graph import PromptGraph, read_graph, with_defaults, with_widgets
from safety_steering_pack.commands.main import main
from safety_steering_pack.safety_steering.activations import SAFE, UNSAFE, Activations, Row, Source, States
from safety_steering_pack.safety_steering.errors import SafetySteeringError
from safety_steering_pack.safety_steering.vectors.file import load_vector

PLACES = ("conditioning", "block.blocks.0.image")
GRAPH = {
    "1": {"class_type": "UNETLoader", "inputs": {"unet_name": "a", "weight_dtype": "default"}},
    "2": {"class_type": "SafetySteering_CaptureActivations", "inputs": {"model": ["1", 0], "steps": 20}},
}


@pytest.fixture
def activations(tmp_path):
    source = Source({name: (f"tiny/{name}", 8) for name in PLACES}, (0.0, 1.0), "wan", "tiny", "f", {"blocks": 1})
    folder = Activations.create(tmp_path / "states", source)
    rows = [
        Row(f"{split}{i}/{label}", label, "gore", f"{split}{i}", split)
        for split in ("train", "validation")
        for i in range(8)
        for label in (UNSAFE, SAFE)
    ]
    generator = torch.Generator().manual_seed(0)
    states = {}
    for name in PLACES:
        pooled, token = (torch.randn(len(rows), 1, 8, generator=generator) for _ in range(2))
        pooled[0::2, :, 0] -= 4
        states[name] = States(pooled, token, torch.stack([pooled, token], dim=2).bfloat16())
    folder.append(rows, states)
    return folder.folder


def test_a_folder_becomes_a_vector_a_table_and_its_json(activations, tmp_path, capsys):
    target = tmp_path / "v.safetensors"
    assert main(["fit", str(activations), str(target), "--method", "shrunk_lda", "--shrinkage", "0.5"]) == 0
    printed = capsys.readouterr().out
    assert "conditioning" in printed
    assert "native: made from" in printed
    vector = load_vector(target)
    assert tuple(vector.hook_points) == PLACES
    assert vector.info.parameters["shrinkage"] == 0.5
    assert vector.info.parameters["tokens"] == "differing"
    assert vector.detectors is not None
    table = json.loads(target.with_suffix(".json").read_text())
    assert set(table) >= {"command", "commit", "seeds", "rows"}
    assert {row["hook_point"] for row in table["rows"]} == set(PLACES)
    assert main(["fit", str(activations), str(target)]) == 1  # an existing file is kept
    assert "exists already" in capsys.readouterr().err
    assert main(["fit", str(activations), str(target), "--overwrite"]) == 0


def test_a_folder_that_is_none_gets_one_sentence(tmp_path, capsys):
    assert main(["fit", str(tmp_path), str(tmp_path / "v.safetensors")]) == 1
    assert "is not a folder of safety activations" in capsys.readouterr().err


def test_a_file_or_folder_that_is_not_there_gets_one_sentence(tmp_path, capsys):
    for command in (
        ["fit", "nope", "v"],
        ["transfer", "nope", "b", "v"],
        ["align", "nope", "b", "v"],
        ["inspect", "nope"],
    ):
        assert main([command[0], *(str(tmp_path / name) for name in command[1:])]) == 1
        told = capsys.readouterr().err
        assert "nope" in told
        assert "Check its name" in told
        assert "Errno" not in told
        assert len(told.splitlines()) == 1


def test_a_server_that_does_not_answer_gets_one_sentence(capsys):
    for command in ("capture", "calibrate"):
        assert main([command, "--server", "http://127.0.0.1:9"]) == 1
        told = capsys.readouterr().err
        assert "No ComfyUI server answers at http://127.0.0.1:9 (Connection refused). Start one with" in told


@pytest.mark.parametrize(
    "address",
    ["nonsense", "127.0.0.1:8188", "http://", "http://host:port", "http://host:99999", "http://[::1", "http://a b",
     "ftp://host", "x" * 5000],
)  # fmt: skip
def test_an_address_that_is_none_gets_one_short_sentence(address, capsys):
    for command in ("capture", "calibrate"):
        assert main([command, "--server", address]) == 1
        told = capsys.readouterr().err
        assert told.startswith(f"--server is '{address[:40]}")
        assert told.endswith("Give an address such as http://127.0.0.1:8188.\n")
        assert len(told) < 200


@pytest.mark.parametrize(
    ("login", "words"),
    [
        (["--token", "hush"], "--token names an environment variable"),
        (["--token", "ODD"], "characters that no header can hold"),
        (["--header", "hush"], "A --header does not read"),
        (["--header", "X-Key: hush\n"], "No ComfyUI server answers"),
        (["--header", "X-Key: hush\nX: y"], "A --header does not read"),
        (["--header", "X-Key: h\u00fcsh hush"], "A --header does not read"),
        (["--header", "X-Key: $hush"], "The environment variable of --header X-Key is not set"),
        (["--header", "X-Key: ${ODD}"], "The environment variable of --header X-Key is not set, or is not plain text"),
    ],
)
def test_a_login_that_does_not_read_gets_one_sentence_without_it(login, words, capsys, monkeypatch):
    monkeypatch.setenv("ODD", "hush\nhush")
    assert main(["capture", "--server", "http://me:hush@127.0.0.1:9", *login]) == 1
    told = capsys.readouterr()
    assert words in told.err
    assert "hush" not in told.err + told.out
    assert len(told.err.splitlines()) == 1


def test_an_address_with_a_password_is_shown_without_it(capsys):
    assert main(["capture", "--server", "http://me:hush@host:port"]) == 1
    assert capsys.readouterr().err.startswith("--server is 'http://host:port'")


class Page(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>another server</html>")

    def log_message(self, *_):
        pass


def test_a_server_that_is_not_comfyui_gets_one_sentence(capsys):
    with HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert main(["capture", "--server", f"http://127.0.0.1:{server.server_port}"]) == 1
        server.shutdown()
    assert capsys.readouterr().err.startswith("No ComfyUI server answers at http://127.0.0.1:")


def test_widgets_are_changed_by_class_or_id():
    changed = with_widgets(GRAPH, ["CaptureActivations.steps=8", "1.unet_name=b=c", "UNETLoader.on=true"])
    assert changed["2"]["inputs"] == {"model": ["1", 0], "steps": "8"}
    assert changed["1"]["inputs"] == {"unet_name": "b=c", "weight_dtype": "default", "on": True}
    assert GRAPH["2"]["inputs"]["steps"] == 20
    for wrong in ("steps=8", "KSampler.steps=8", "CaptureActivations.steps", ""):
        with pytest.raises(SafetySteeringError, match=r"NODE\.WIDGET=VALUE; the graph's nodes are: CaptureActivations"):
            with_widgets(GRAPH, [wrong])


def test_defaults_are_those_of_the_server():
    threshold = {"required": {"threshold": ["FLOAT", {"default": 0.5}]}}
    judges = [{"key": "nudenet", "inputs": threshold}, {"key": "node", "inputs": {"required": {"id": ["STRING", {}]}}}]
    definition = {
        "input": {
            "required": {
                "steps": ["INT", {"default": 20}],
                "file": [["a", "b"], {}],
                "sampler": ["COMBO", {"options": ["euler"]}],
                "judge": ["COMFY_DYNAMICCOMBO_V3", {"options": judges}],
                "model": ["MODEL", {"tooltip": "a link"}],
            },
            "optional": {"later": ["INT", {"default": 1}]},
        }
    }
    found = {"steps": 20, "file": "a", "sampler": "euler", "judge": "nudenet", "judge.threshold": 0.5}
    graph = PromptGraph()
    assert graph.add("Node", steps=3, model=["9", 0])[1] == ["1", 1]
    graph.add("Node", judge="node")
    first, second = with_defaults(graph.prompt, {"Node": definition}).values()
    assert first["inputs"] == {**found, "steps": 3, "model": ["9", 0]}
    assert second["inputs"] == {"steps": 20, "file": "a", "sampler": "euler", "judge": "node"}
    graph.add("Other")
    with pytest.raises(SafetySteeringError, match="does not know the node Other"):
        with_defaults(graph.prompt, {"Node": definition})


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"nodes": []}', "no json"])
def test_a_file_that_is_no_api_graph_gets_one_sentence(tmp_path, text):
    path = tmp_path / "graph.json"
    path.write_text(text)
    with pytest.raises(SafetySteeringError, match=r"graph\.json"):
        read_graph(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_a_graph_in_any_unicode_encoding_is_read(tmp_path, encoding):
    (tmp_path / "graph.json").write_bytes(json.dumps(GRAPH).encode(encoding))
    assert read_graph(tmp_path / "graph.json") == GRAPH
