"""What a pack's own thread writes long after its job has ended: nobody is shown it, and it is put aside."""

from __future__ import annotations

import time
import urllib.error
import urllib.parse
import urllib.request

import pytest
from attack_graphs import pictures, sampled, their_picture
from guarded import once
from safety_steering_pack.commands.api_graph import PromptGraph

FOLDERS = {"output": "output", "temp": "temp", "input": "input", "user": "user/default"}


def late(guarded, folder, name="late.png"):
    """Run a job with a node whose thread waits; returns what lets the thread write, and waits until it has."""
    graph = PromptGraph()
    graph.add("Hostile_LateWriter", images=their_picture(guarded, graph), folder=folder, name=name)
    graph.add("PreviewImage", images=pictures(graph, sampled(graph)))
    guarded.client.run(once(graph)).succeeded()

    def write():
        go = guarded.base_directory / "go"
        go.touch()
        deadline = time.monotonic() + 30
        while go.exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    return write


def asked(guarded, path, **query):
    try:
        address = f"{guarded.address}{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(address, timeout=30) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


def viewed(guarded, folder, name):
    if folder == "user":
        return asked(guarded, f"/userdata/{urllib.parse.quote(name, safe='')}")
    subfolder, _, last = name.rpartition("/")
    return asked(guarded, "/view", filename=last, subfolder=subfolder, type=folder)


def put_aside(guarded, name):
    return [path.read_bytes()[1:4] for path in (guarded.private / "quarantine").rglob(f"*{name}")]


@pytest.mark.parametrize("name", ["asked.png", "deep/er/asked.png", "asked.png.safety.json"])
@pytest.mark.parametrize("folder", ["output", "temp"])
def test_what_no_record_knows_is_put_aside_when_it_is_asked_for(guarded, folder, name):
    late(guarded, folder, name.removesuffix(".safety.json"))()
    path = guarded.base_directory / folder / name
    if name.endswith(".json"):
        path.with_name("asked.png").rename(path)
    assert path.is_file()
    assert viewed(guarded, folder, name) == 404
    assert not path.exists()
    assert b"PNG" in put_aside(guarded, path.name)


@pytest.mark.parametrize("folder", ["output", "temp"])
def test_what_no_record_knows_is_put_aside_before_the_next_job(guarded, folder):
    late(guarded, folder, "waiting.png")()
    graph = PromptGraph()
    graph.add("SaveImage", images=pictures(graph, sampled(graph)), filename_prefix="after")
    run = guarded.client.run(once(graph)).succeeded()
    assert not (guarded.base_directory / folder / "waiting.png").exists()
    assert put_aside(guarded, "waiting.png")
    assert guarded.record_of(run)["decision"] == "delivered"
    (saved,) = guarded.output_files(run)
    assert viewed(guarded, "output", saved.name) == 200


@pytest.mark.parametrize("folder", ["input", "user"])
def test_what_no_request_has_written_is_not_shown_where_clients_write(guarded, folder):
    late(guarded, folder, "planted.png")()
    path = guarded.base_directory / FOLDERS[folder] / "planted.png"
    assert path.is_file()
    assert viewed(guarded, folder, "planted.png") == 404
    path.unlink()


@pytest.mark.parametrize("folder", ["input", "user"])
def test_what_a_request_has_written_is_shown_until_a_thread_writes_over_it(guarded, folder):
    if folder == "user":
        request = urllib.request.Request(f"{guarded.address}/userdata/sent.png", b"sent", method="POST")
    else:
        form = b'--x\r\nContent-Disposition: form-data; name="image"; filename="sent.png"\r\n\r\nsent\r\n--x--\r\n'
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        request = urllib.request.Request(f"{guarded.address}/upload/image", form, kind, method="POST")
    with urllib.request.urlopen(request, timeout=30):
        assert viewed(guarded, folder, "sent.png") == 200
    late(guarded, folder, "sent.png")()
    assert viewed(guarded, folder, "sent.png") == 404
    (guarded.base_directory / FOLDERS[folder] / "sent.png").unlink()


def test_a_signed_output_that_a_thread_has_changed_is_not_shown(guarded):
    graph = PromptGraph()
    graph.add("SaveImage", images=pictures(graph, sampled(graph)), filename_prefix="changed")
    run = guarded.client.run(once(graph)).succeeded()
    (saved,) = guarded.output_files(run)
    assert viewed(guarded, "output", saved.name) == 200
    data = bytearray(saved.read_bytes())
    data[-20] ^= 1  # the same size
    saved.write_bytes(data)
    assert viewed(guarded, "output", saved.name) == 404
    assert not saved.exists()


def test_a_thread_that_writes_into_its_private_folder_does_not_write_into_anothers(guarded):
    """A node has the same private folders in each job; one of another class with its id has others."""
    write = late(guarded, "private", "mixed.png")
    graph = PromptGraph()
    their_picture(guarded, graph)
    busy = graph.add("Hostile_SlowSave", seconds=4.0)  # "2", as the node that writes late
    graph.prompt[busy.id]["inputs"]["images"] = pictures(graph, sampled(graph))
    prompt_id = guarded.client.submit(once(graph))
    deadline = time.monotonic() + 60
    while not list((guarded.private / "staging").rglob("slow.png")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    write()
    run = guarded.client.result(prompt_id).succeeded()
    assert [path.name for path in guarded.output_files(run)] == ["slow.png"]
    assert not list((guarded.base_directory / "output").rglob("mixed*"))


def test_states_that_this_packs_nodes_keep_stay_and_are_not_shown(guarded):
    folder = guarded.base_directory / "output" / "safety_activations" / "mine"
    folder.mkdir(parents=True)
    (folder / "shard-00000.safetensors").write_bytes(b"states")
    (folder / "stray.png").write_bytes(b"a picture")
    graph = PromptGraph()
    graph.add("PreviewImage", images=pictures(graph, sampled(graph)))
    guarded.client.run(once(graph)).succeeded()
    assert (folder / "shard-00000.safetensors").is_file()
    assert not (folder / "stray.png").exists()
    assert viewed(guarded, "output", "safety_activations/mine/shard-00000.safetensors") == 404
    assert (folder / "shard-00000.safetensors").is_file()
