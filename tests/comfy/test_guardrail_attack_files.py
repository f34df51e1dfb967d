"""Vectors, files and routes that a hostile client could try on a guarded server."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import pytest
import torch
from attack_graphs import OPERATORS, WAN, check_steered, graph_of
from guarded import GuardedServer, by_hand, refusal_of, sample_guarded
from safetensors.torch import save_file
from safety_steering_pack.commands.comfy_client import PromptRejected
from safety_steering_pack.safety_steering.files import file_sha256
from safety_steering_pack.safety_steering.vectors.file import save_vector
from steered_graphs import apply_vector, put_vector
from vector_algebra import select


def test_a_vector_of_theirs(guarded):
    theirs = WAN.vector(seed=7)
    put_vector(guarded, "theirs", theirs)
    graph, _, _ = graph_of(apply_vector("theirs.safetensors", strength=1.0))
    assert "theirs.safetensors is not one of the safety vectors of this host" in refusal_of(guarded, graph)


def test_a_vector_of_theirs_under_the_operators_name(guarded, server):
    path = guarded.private / OPERATORS
    mine = path.read_bytes()
    try:
        save_vector(select(WAN.vector(seed=7), hook_points=(WAN.block,)), path, overwrite=True)
        # the policy in force goes on with what it has checked and loaded
        done = sample_guarded(guarded)
        assert torch.equal(done.latent, by_hand(server))
        # the next one finds that the file is another
        text = (guarded.private / "policy.toml").read_text(encoding="utf-8")
        guarded.write_policy(f"# again\n{text}")
        assert "has the sha256" in refusal_of_any(guarded)
        assert "has the sha256" in guarded.status()["problem"]
    finally:
        path.write_bytes(mine)
    assert guarded.status()["serving"]


def refusal_of_any(guarded):
    """What the server says while it serves nobody; its audit is closed to it then."""
    graph, _, _ = graph_of()
    with pytest.raises(PromptRejected) as refused:
        guarded.client.run(graph.prompt)
    return refused.value.error["message"]


@pytest.mark.parametrize("text", ["version = 1\n[[rules", "version = 1\nstrenght = 3\n", "", "\x00\x01"])
def test_an_invalid_policy_serves_nobody(guarded, text):
    guarded.write_policy(text)
    assert "The policy policy.toml" in refusal_of_any(guarded)
    assert not guarded.status()["serving"]
    for path in ("/safety_steering/status", "/api/safety_steering/status"):  # as a load balancer asks
        assert answer(guarded, path)[0] == 503
    guarded.set_policy()
    assert answer(guarded, "/safety_steering/status")[0] == 200
    check_steered(sample_guarded(guarded).record)


@pytest.mark.parametrize(
    "change",
    [
        {"SaveLatent": {"filename_prefix": "../../escaped"}},
        {"SaveLatent": {"filename_prefix": "/escaped"}},
        {"SaveLatent": {"filename_prefix": "a\\..\\..\\escaped"}},
        {"UNETLoader": {"unet_name": "../diffusion_models/wan2.1_t2v_1.3B_fp16.safetensors"}},
    ],
)
def test_path_traversal(guarded, change):
    graph, _, _ = graph_of()
    ((name, inputs),) = change.items()
    next(node for node in graph.prompt.values() if node["class_type"] == name)["inputs"].update(inputs)
    assert "leads out of the server's folders" in refusal_of(guarded, graph)


def answer(guarded: GuardedServer, path, data=None, method=None, headers=None):
    """The status code and body of a request."""
    request = urllib.request.Request(guarded.address + path, data, headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/userdata/policy.toml", {}),
        ("/userdata/..%2F__safety_steering%2Fpolicy.toml", {}),
        ("/api/userdata/..%2F..%2F__safety_steering%2Fpolicy.toml", {}),
        ("/userdata/policy.toml", {"comfy-user": "__safety_steering"}),
        ("/userdata/safety_steering%2Fpolicy.toml", {}),
    ],
)
def test_a_policy_posted_to_userdata(guarded, path, headers):
    before = guarded.status()["policy"]["sha256"]
    policy = (guarded.private / "policy.toml").read_bytes()
    answer(guarded, path, policy.replace(b"strength = 3.0", b"strength = 0.1"), headers=headers)
    assert (guarded.private / "policy.toml").read_bytes() == policy
    assert guarded.status()["policy"]["sha256"] == before
    check_steered(sample_guarded(guarded).record)


def form(**fields):
    """A multipart form with one file."""
    parts = [f'--x\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in fields.items()]
    head = '--x\r\nContent-Disposition: form-data; name="image"; filename="evil.safetensors"\r\n\r\n'
    return ("".join(parts) + head + "evil\r\n--x--\r\n").encode(), {"Content-Type": "multipart/form-data; boundary=x"}


def test_uploads_reach_the_input_folder_only(guarded):
    for prefix in ("", "/api"):
        for kind in ("output", "temp"):
            body, headers = form(type=kind, subfolder="loras")
            assert answer(guarded, f"{prefix}/upload/image", body, headers=headers)[0] == 403
    body, headers = form(type="input", subfolder="../user/__safety_steering")
    assert answer(guarded, "/upload/image", body, headers=headers)[0] == 400
    assert not list(guarded.base_directory.rglob("evil*"))
    body, headers = form(type="input")
    assert answer(guarded, "/upload/image", body, headers=headers)[0] == 200


@pytest.mark.parametrize("path", ["/api/assets", "/manager/queue/install", "/safety_steering/status", "/metrics"])
def test_clients_change_nothing_else(guarded, path):
    assert answer(guarded, path, b"{}", headers={"Content-Type": "application/json"})[0] == 403


def test_status_and_metrics_are_for_the_operator(guarded):
    for path in ("/safety_steering/status", "/metrics"):
        assert answer(guarded, path)[0] == 200
        assert answer(guarded, path, headers={"X-Forwarded-For": "127.0.0.1"})[0] == 403
        assert answer(guarded, path, headers={"X-Forwarded-For": "1.2.3.4", "Authorization": "Bearer x"})[0] == 403
    assert b"safety_steering_jobs_total" in answer(guarded, "/metrics")[1]


def claims_two_gigabytes(data):
    return (2 * 1024**3).to_bytes(8, "little") + data[8:]


def test_a_header_of_two_gigabytes(guarded):
    folder = guarded.base_directory / "input"
    save_file({"latent_tensor": torch.zeros(1, 16, 3, 8, 8)}, folder / "huge.latent")
    path = folder / "huge.latent"
    path.write_bytes(claims_two_gigabytes(path.read_bytes()))
    graph, _, _ = graph_of()
    latent = graph.add("LoadLatent", latent="huge.latent")
    sampler = next(node for node in graph.prompt.values() if node["class_type"] == "KSampler")
    sampler["inputs"]["latent_image"] = latent[0]
    run = guarded.client.run(graph.prompt)
    assert run.error is not None
    assert guarded.record_of(run)["decision"] == "failed"
    vector = guarded.private / OPERATORS
    mine = vector.read_bytes()
    vector.write_bytes(claims_two_gigabytes(mine))
    text = (guarded.private / "policy.toml").read_text(encoding="utf-8")
    guarded.write_policy(text.replace(_sha256_line(text), f'sha256 = "{file_sha256(vector)}"'))
    assert "2147483648 bytes" in refusal_of_any(guarded)
    vector.write_bytes(mine)
    guarded.set_policy()
    check_steered(sample_guarded(guarded).record)


def _sha256_line(text):
    return next(line for line in text.splitlines() if line.startswith("sha256"))


def test_ten_thousand_nodes(guarded):
    graph, _, _ = graph_of()
    for _ in range(10_000):
        graph.add("PrimitiveInt", value=1)
    assert "nodes; this server takes" in refusal_of(guarded, graph)
    check_steered(sample_guarded(guarded).record)


@pytest.mark.parametrize("prompt", [[], "x", 3, None, {"1": 2}, {"1": {}}, {"1": {"class_type": [], "inputs": {}}}])
def test_malformed_prompts(guarded, prompt):
    body = json.dumps({"prompt": prompt}).encode()
    assert answer(guarded, "/prompt", body, headers={"Content-Type": "application/json"})[0] == 400
    assert answer(guarded, "/prompt", b"{", headers={"Content-Type": "application/json"})[0] == 400
    assert guarded.status()["serving"]
