"""What a pack's node leaves in folders that clients reach, where nothing is judged and signed, is gone when it ends."""

from __future__ import annotations

import json
import threading
import time
import urllib.request

import pytest
from attack_graphs import pictures, sampled, their_picture
from guarded import GuardedServer, once, refusal_of
from safety_steering_pack.commands.api_graph import PromptGraph


def stray(guarded, folder="output", name="stray.png", how=""):
    graph = PromptGraph()
    graph.add("Hostile_Stray", images=their_picture(guarded, graph), folder=folder, name=name, how=how)
    return graph


def left(guarded: GuardedServer, pattern="stray*"):
    return [path for path in guarded.base_directory.rglob(pattern) if "hostile_nodes" not in path.parts]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"folder": "input"}, "It wrote a file (stray.png) into the input folder or a user's folder"),
        ({"folder": "input", "name": "deep/er/stray.bin"}, "It wrote a file (stray.bin) into the input folder"),
        ({"folder": "user"}, "It wrote a file (stray.png) into the input folder or a user's folder"),
        ({"folder": "user", "name": "workflows/stray.json"}, "It wrote a file (stray.json)"),
        ({"folder": "input", "how": "link to a folder"}, "It wrote a file (stray.png) into the input folder"),
        ({"how": "link to a folder"}, "It wrote a link or the like (stray.png) and no file"),
        ({"how": "announced link"}, "It wrote a link or the like (stray.png) and no file"),
        ({"name": "stray.png.safety.json"}, "no sampler run of this server made it"),
        ({"name": ".stray.new"}, "no sampler run of this server made it"),
        ({"folder": "temp", "name": "stray\n\x1b[2J.png"}, "has characters that are not shown as they are"),
    ],
)
def test_what_is_no_signed_output_is_removed(guarded, settings, words):
    assert words in refusal_of(guarded, stray(guarded, **settings))
    assert not left(guarded)
    assert (guarded.base_directory / "input" / "theirs.png").is_file()


@pytest.mark.parametrize("folder", ["output", "temp", "input", "user"])
def test_a_node_that_fails_after_it_has_written(guarded, folder):
    run = guarded.client.run(stray(guarded, folder, how="raise").prompt)
    assert run.status == "error"
    assert not left(guarded)
    assert guarded.record_of(run)["decision"] == "refused"
    assert "left a file (stray.png)" in guarded.record_of(run)["reason"]


def test_a_node_that_writes_while_others_run(guarded):
    graph = stray(guarded, how="later")
    graph.add("PreviewImage", images=pictures(graph, sampled(graph, length=1)))
    run = guarded.client.run(once(graph))
    assert guarded.record_of(run)["decision"] == "refused"
    assert not left(guarded)


@pytest.mark.parametrize("folder", ["input", "user"])
def test_a_node_that_deletes_what_a_client_has_stored(guarded, folder):
    path = guarded.base_directory / ("input" if folder == "input" else "user/default") / "precious.txt"
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    refused = refusal_of(guarded, stray(guarded, folder, "precious.txt", how="delete"))
    assert "It changed or deleted files that it did not make (precious.txt)" in refused


def post(guarded, path, data, headers):
    request = urllib.request.Request(guarded.address + path, data, headers, method="POST")
    with urllib.request.urlopen(request, timeout=30) as response:
        return response.status


def test_what_clients_send_meanwhile_is_not_the_nodes(guarded):
    """Uploads and user data that arrive while a pack's node runs stay, and the job is not refused for them."""
    graph = PromptGraph()
    saved = pictures(graph, sampled(graph, length=1))
    graph.add("Hostile_Busy", images=saved, seconds=3.0)
    graph.add("SaveImage", images=saved, filename_prefix="beside")
    runs = []
    job = threading.Thread(target=lambda: runs.append(guarded.client.run(once(graph))))
    job.start()
    form = b'--x\r\nContent-Disposition: form-data; name="image"; filename="sent.png"\r\n\r\nsent\r\n'
    form += b'--x\r\nContent-Disposition: form-data; name="subfolder"\r\n\r\nmine\r\n--x--\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    while job.is_alive():
        post(guarded, "/upload/image", form, kind)
        post(guarded, "/userdata/workflows%2Fsent.json", b"{}", {"Content-Type": "application/json"})
        post(guarded, "/settings/Comfy.Sent", json.dumps(time.time()).encode(), {"Content-Type": "application/json"})
        time.sleep(0.05)
    job.join()
    (run,) = runs
    assert guarded.record_of(run)["decision"] == "delivered", guarded.record_of(run)["reason"]
    assert left(guarded, "sent*.png")
    assert left(guarded, "sent.json")
