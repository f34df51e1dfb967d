"""`python -m safety_steering capture | calibrate` against a real server, with the small world in it."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from pathlib import Path

import pytest
from comfy_server import ComfyServer
from login_proxy import LoginProxy
from safety_steering_pack.commands.api_graph import PromptGraph
from safety_steering_pack.commands.main import main
from safety_steering_pack.safety_steering.vectors.file import load_vector
from small_world.runtime import JUDGE_FILE
from small_world_workflows import PAIRS, PAIRS_FILE, small_world_folder

SAMPLER = {"steps": 2, "cfg": 3.0, "sampler_name": "euler", "scheduler": "simple", "seed": 0, "negative": ""}


@pytest.fixture(scope="module", autouse=True)
def small_world(server: ComfyServer) -> None:
    small_world_folder(server.base_directory)


def shared(graph: PromptGraph) -> dict:
    """Loaders, prompts and latent of the small world, as links."""
    return {
        "model": graph.add("UNETLoader", unet_name="small_wan.safetensors", weight_dtype="default")[0],
        "clip": graph.add("SafetySteeringDev_StandInClip", kind="small world", width=384)[0],
        "prompts": graph.add(
            "SafetySteering_LoadSafetyPrompts",
            prompts=PAIRS_FILE,
            columns="",
            unpaired="as the file says",
            categories="",
            train=0.6,
            validation=0.2,
            split_seed=0,
            limit=0,
        )[0],
        "latent": graph.add("EmptyHunyuanLatentVideo", width=64, height=64, length=5, batch_size=1)[0],
    }


def write(graph: PromptGraph, path: Path) -> str:
    path.write_text(json.dumps(graph.prompt))
    return str(path)


def test_capture_goes_through_the_server(server: ComfyServer, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    graph = PromptGraph()
    capture = {"folder": "x", "hook_points": "conditioning", "sigma_bins": 1, **SAMPLER}
    graph.add("SafetySteering_CaptureActivations", capture, **shared(graph))
    arguments = ["capture", "--server", server.address, "--graph", write(graph, tmp_path / "capture.json")]
    arguments += ["--set", "CaptureActivations.folder=through_cli", "--set", "LoadSafetyPrompts.limit=2"]
    assert main(arguments) == 0
    told = capsys.readouterr()
    assert told.out.startswith("4 videos (2 safe, 2 unsafe)")
    assert re.search(r"100%.* 8/8 \[", told.err)
    assert (server.base_directory / "output" / "safety_activations" / "through_cli" / "manifest.json").is_file()


def test_calibrate_prints_the_table_and_saves_the_vector(
    server: ComfyServer, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    graph = PromptGraph()
    judge = {"judge": "judge_file", "judge.file": JUDGE_FILE.name, "judge.threshold": 0.5, "frames": 8}
    links = shared(graph) | {
        "vae": graph.add("VAELoader", vae_name="small_wan_vae.safetensors")[0],
        "safety_vector": graph.add("SafetySteering_LoadSafetyVector", vector="small_wan_native.safetensors")[0],
        "judge": graph.add("SafetySteering_SafetyJudge", judge, features="the judge's own")[0],
    }
    settings = {"hook_points": "conditioning", "strengths": "4", "windows": "0-1", "interventions": "clamp none"}
    settings |= {"folder": "cli", "budget": 30, "allowed_asr": 0.15, "allowed_benign_loss": 0.03, **SAMPLER}
    calibrated = graph.add("SafetySteering_CalibrateSteering", settings, **links)
    graph.add("SafetySteering_SaveSafetyVector", safety_vector=calibrated[0], filename="found", overwrite=False)
    arguments = ["calibrate", "--server", server.address, "--graph", write(graph, tmp_path / "calibrate.json")]
    assert main(arguments) == 0
    told = capsys.readouterr().out
    assert "Suggested for Apply: strength 4, intervention clamp, norm none" in told
    found = load_vector(server.models / "safety_vectors" / "found.safetensors")
    assert found.info.suggestion.strength == 4
    assert found.info.provenance[-1]["step"] == "calibrate"
    table = json.loads(
        (server.base_directory / "output" / "safety_calibrations" / "cli" / "calibration.json").read_text()
    )
    assert [row["chosen"] for row in table["rows"]] == [False, True]
    assert min(2, PAIRS["validation"]) == table["rows"][0]["n_unsafe"]


def test_a_server_behind_a_login_and_a_path(
    server: ComfyServer, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = PromptGraph()
    capture = {"folder": "login", "hook_points": "conditioning", "sigma_bins": 1, **SAMPLER}
    graph.add("SafetySteering_CaptureActivations", capture, **shared(graph))
    command = ["capture", "--graph", write(graph, tmp_path / "capture.json"), "--set", "LoadSafetyPrompts.limit=1"]
    monkeypatch.setenv("MY_KEY", "k3y-of-mine")
    bearer, basic = "Bearer k3y-of-mine", "Basic " + b64encode(b"me:k3y-of-mine").decode()
    for header, login in (
        (("Authorization", bearer), ["--token", "MY_KEY"]),
        (("Authorization", bearer), ["--header", "Authorization: Bearer $MY_KEY"]),
        (("X-Api-Key", "k3y-of-mine"), ["--header", "X-Api-Key: ${MY_KEY}"]),
        (("X-Api-Key", "k3y-of-mine"), ["--header", "X-Api-Key:k3y-of-mine"]),
        (("Authorization", basic), []),
    ):
        with LoginProxy(server.address, header) as proxy:
            address = proxy.address if login else proxy.address.replace("://", "://me:k3y-of-mine@")
            assert main([*command, "--server", f"{address}/", *login]) == 0
            told = capsys.readouterr()
            assert told.out
            assert (proxy.refused, proxy.sockets) == (0, 1)
            for wrong in (["--server", proxy.address], ["--server", proxy.address, "--header", "X-Other: k3y-of-mine"]):
                assert main([*command, *wrong]) == 1
                told = capsys.readouterr()
                assert ("refuses the login (401)" if len(wrong) > 2 else "asks for a login (401)") in told.err
                assert "k3y" not in told.err + told.out


def test_a_redirect_to_a_login_page_takes_no_header_along(
    server: ComfyServer, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAFETY_STEERING_TOKEN", "k3y-of-mine")
    with LoginProxy(server.address, ("X-Api-Key", "other"), "redirect") as proxy:
        assert main(["capture", "--model", "a", "--text-encoder", "b", "--server", proxy.address]) == 1
        assert (proxy.refused, proxy.followed) == (1, 0)
    told = capsys.readouterr().err
    assert "redirects to http://localhost:" in told
    assert "/login. If that is a login page" in told
    assert "secret" not in told
    assert "k3y" not in told


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["capture"], "Give --model and --text-encoder"),
        (["calibrate", "--model", "a", "--text-encoder", "b"], "Give --vae and --vector"),
        (["capture", "--model", "nowhere", "--text-encoder", "b"], "nowhere"),
        (["capture", "--model", "a", "--text-encoder", "b", "--latent", "NoSuchNode"], "does not know the node NoSuch"),
    ],
)
def test_what_is_missing_gets_one_sentence(
    server: ComfyServer, arguments: list[str], words: str, capsys: pytest.CaptureFixture
) -> None:
    assert main([*arguments, "--server", server.address]) == 1
    told = capsys.readouterr().err
    assert words in told
    assert "Traceback" not in told


def test_every_input_and_output_of_the_node_is_explained(server: ComfyServer) -> None:
    info = server.client.object_info("SafetySteering_CalibrateSteering")
    inputs = {**info["input"]["required"], **info["input"]["optional"]}
    assert all(options["tooltip"] for _, options in inputs.values())
    assert list(info["output"]) == ["SAFETY_VECTOR", "IMAGE", "IMAGE", "STRING"]
    assert info["output_name"] == ["safety_vector", "heatmap", "front", "table"]
    assert all(info["output_tooltips"])
    assert info["search_aliases"]
