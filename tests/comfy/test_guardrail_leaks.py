"""Nothing leaves a guarded server beside the output gate and the signed record."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import aiohttp
import pytest
from attack_graphs import pictures, sampled, their_picture
from guarded import GuardedServer, guarded_copy, once, refusal_of
from safety_steering_pack.commands.api_graph import PromptGraph
from safety_steering_pack.guardrail.evidence import sidecar_of, verify_file
from tiny.graphs import save_latent


def steered(graph, length=1):
    return pictures(graph, sampled(graph, length=length))


def run(guarded, graph):
    done = guarded.client.run(once(graph)).succeeded()
    return done, guarded.record_of(done)


def served(guarded):
    folders = [guarded.base_directory / kind for kind in ("output", "temp")]
    return {path for folder in folders for path in folder.rglob("*") if path.is_file()}


def all_signed(guarded, before):
    key = guarded.status()["public_key"]
    new = [path for path in served(guarded) - before if not path.name.endswith(".safety.json")]
    for path in new:
        verify_file(path, [key])
    return new


@pytest.mark.parametrize("what", ["IMAGE", "LATENT", "text"])
def test_a_picture_as_text_is_not_shown(guarded, what):
    graph = PromptGraph()
    latent = sampled(graph)
    source = latent if what == "LATENT" else pictures(graph, latent)
    if what == "text":
        source = graph.add("Hostile_PictureToText", images=source, caption=False)[0]
    shown = graph.add("PreviewAny", source=source)
    save_latent(graph, latent, "beside")
    done, record = run(guarded, graph)
    assert done.text(shown.id).strip().startswith(f"Node {shown.id}, PreviewAny: This text carries pictures")
    assert any("carries pictures" in warning for warning in record["warnings"])
    graph = PromptGraph()
    latent = sampled(graph)
    text = graph.add("Hostile_PictureToText", images=pictures(graph, latent), caption=False)
    graph.add("PreviewAny", source=text[0])
    assert "This text carries pictures and not words" in refusal_of(guarded, graph)


def letters(graph, text):
    """The digits of a text as letters."""
    for digit, letter in zip("0123456789", "abcdefghij", strict=True):
        text = graph.add("StringReplace", string=text, find=digit, replace=letter)[0]
    return text


@pytest.mark.parametrize("how", ["one pixel", "a piece", "letters", "joined", "file"])
def test_a_picture_as_text_in_small_pieces(guarded, how):
    """What a text of a picture's numbers is cut, spelled or put together into is such a text still."""
    graph = PromptGraph()
    theirs = their_picture(guarded, graph)
    if how == "one pixel":
        theirs = graph.add("ImageCrop", image=theirs, width=1, height=1, x=0, y=0)[0]
        graph.add("PreviewAny", source=theirs)
    text = graph.add("StringSubstring", string=graph.add("PreviewAny", source=theirs)[0], start=8, end=20)[0]
    text = letters(graph, text) if how == "letters" else text
    if how == "joined":
        text = graph.add("StringConcatenate", string_a="a fox in the snow", string_b=text, delimiter=" ")[0]
    if how == "file":
        graph.add("SaveText", text=text, filename_prefix="numbers", format="txt")
        assert "no sampler run of this server made it" in refusal_of(guarded, graph)
        return
    shown = graph.add("PreviewAny", source=text)
    save_latent(graph, sampled(graph), "beside")
    done, _ = run(guarded, graph)
    assert done.text(shown.id).strip().startswith(f"Node {shown.id}, PreviewAny: This text carries pictures")


def test_a_picture_as_text_in_a_file(guarded):
    graph = PromptGraph()
    theirs = their_picture(guarded, graph)
    text = graph.add("Hostile_PictureToText", images=theirs, caption=False)
    graph.add("SaveText", text=text[0], filename_prefix="numbers", format="txt")
    assert "no sampler run of this server made it" in refusal_of(guarded, graph)
    assert not list((guarded.base_directory / "output").rglob("numbers*"))


@pytest.mark.parametrize(
    "text",
    [
        " " * 70_000 + "<svg xmlns='http://www.w3.org/2000/svg'/>",
        "P3 2 2 255 " + "1 2 3 " * 4,
        "#define art_width 8\n#define art_height 8",
        "%!PS-Adobe-3.0",
        "iVBORw0KGgo" * 400,
    ],
)
def test_a_picture_written_as_text(guarded, text):
    graph = PromptGraph()
    graph.add("SaveText", text=text, filename_prefix="drawn", format="txt")
    assert "no sampler run of this server made it" in refusal_of(guarded, graph)


@pytest.mark.parametrize("name", ["two\nlines", "\x1b[2Jcleared", "\u202egnp", "folder\x07/picture"])
def test_a_file_name_that_is_not_shown_as_it_is(guarded, name):
    graph = PromptGraph()
    graph.add("SaveImage", images=steered(graph), filename_prefix=name)
    refused = refusal_of(guarded, graph)
    assert "has characters that are not shown as they are" in refused
    assert refused.isprintable()


def test_a_name_in_any_writing(guarded):
    graph = PromptGraph()
    graph.add("SaveImage", images=steered(graph), filename_prefix="bilder/fjäll 雪 🦊")
    before = served(guarded)
    run(guarded, graph)
    assert len(all_signed(guarded, before)) == 1


def test_words_are_let_through(guarded):
    graph = PromptGraph()
    caption = graph.add("Hostile_PictureToText", images=steered(graph), caption=True)
    graph.add("PreviewAny", source=caption[0])
    graph.add("SaveText", text="plain words", filename_prefix="words", format="txt")
    before = served(guarded)
    _, record = run(guarded, graph)
    assert [output["verdict"] for output in record["outputs"]] == ["not sampled here"]
    assert len(all_signed(guarded, before)) == 1


def test_a_preview_of_an_input_is_dropped_and_the_job_runs(guarded):
    graph = PromptGraph()
    theirs = their_picture(guarded, graph)
    shown = graph.add("PreviewImage", images=theirs)
    cropped = graph.add("ImageCropV2", image=theirs, crop_region={"x": 0, "y": 0, "width": 32, "height": 32})
    graph.add("PreviewImage", images=cropped[0])
    graph.add("SaveImage", images=steered(graph), filename_prefix="honest")
    before = served(guarded)
    done, record = run(guarded, graph)
    assert (record["verdict"], record["decision"]) == ("steered", "delivered")
    assert done.outputs[shown.id].get("images", []) == []
    assert "This is not delivered: no sampler run of this server made it" in done.text(shown.id)
    (saved,) = all_signed(guarded, before)
    assert saved.name.startswith("honest")


def test_files_on_the_side_are_signed_too(guarded):
    graph = PromptGraph()
    graph.add("Hostile_VideoCombine", images=steered(graph))
    before = served(guarded)
    done, _ = run(guarded, graph)
    new = all_signed(guarded, before)
    assert sorted(path.suffix for path in new) == [".gif", ".png"]
    told = next(iter(done.outputs.values()))["gifs"][0]
    assert told["fullpath"] == str(guarded.output_file(told))
    assert all_signed(guarded, before) == new


def test_what_is_written_past_the_private_folder(guarded):
    for announce in (False, True):
        graph = PromptGraph()
        graph.add("Hostile_PastStaging", images=steered(graph), name=f"past_{announce}.png", announce=announce)
        before = served(guarded)
        run(guarded, graph)
        assert len(all_signed(guarded, before)) == 1
        graph = PromptGraph()
        theirs = their_picture(guarded, graph)
        graph.add("Hostile_PastStaging", images=theirs, name=f"theirs_{announce}.png", announce=announce)
        assert "no sampler run of this server made it" in refusal_of(guarded, graph)
        assert not (guarded.base_directory / "output" / f"theirs_{announce}.png").exists()


def test_a_file_of_another_job_is_not_written_over(guarded):
    graph = PromptGraph()
    saved = graph.add("SaveImage", images=steered(graph), filename_prefix="first")
    done, _ = run(guarded, graph)
    (path,) = guarded.output_files(done)
    graph = PromptGraph()
    graph.add("Hostile_PastStaging", images=steered(graph), name=path.name, announce=False)
    assert "It changed or deleted files that it did not make" in refusal_of(guarded, graph)
    graph = PromptGraph()
    graph.add("SaveImage", images=steered(graph), filename_prefix="again")
    theirs = their_picture(guarded, graph)
    graph.add("SaveImage", images=theirs, filename_prefix="again")
    kept = served(guarded) - {path, sidecar_of(path)}  # what was written over is put aside
    refusal_of(guarded, graph)
    assert served(guarded) >= kept
    assert saved.id


def test_weights_beside_pictures(guarded):
    graph = PromptGraph()
    latent = sampled(graph)
    model = graph.prompt[latent[0]]["inputs"]["model"]
    graph.add("Hostile_WeightsOnTheSide", images=pictures(graph, latent), model=model)
    said = refusal_of(guarded, graph)
    assert "It wrote a file of weights, which is not permitted here (permits.merge_and_save_models)" in said
    assert not list(guarded.base_directory.joinpath("output").rglob("stolen*"))


def view(guarded, name):
    try:
        with urllib.request.urlopen(f"{guarded.address}/view?filename={name}", timeout=30) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


def test_nothing_is_served_before_it_is_signed_also_if_the_server_is_killed(base_directory, tmp_path):
    folder = guarded_copy(base_directory, tmp_path / "comfyui")
    graph = PromptGraph()
    graph.add("Hostile_SlowSave", images=steered(graph), seconds=3.0)
    with GuardedServer(folder) as server:
        output = server.base_directory / "output"
        prompt_id = server.client.submit(once(graph))
        staged = server.private / "staging"
        deadline = time.monotonic() + 60
        while not list(staged.rglob("slow.png")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert view(server, "slow.png") == 404
        server.client.result(prompt_id).succeeded()
        assert view(server, "slow.png") == 200
        assert sidecar_of(output / "slow.png").exists()
        kept = (output / "slow.png").read_bytes()
        server.client.submit(once(graph))
        while not list(staged.rglob("slow.png")):
            time.sleep(0.05)
        os.killpg(server.pid, signal.SIGKILL)
    (output / "nobodys.png").write_bytes(b"a former server has left this")
    with GuardedServer(folder) as server:
        assert not list(server.private.joinpath("staging").rglob("*.png"))
        assert view(server, "nobodys.png") == 404
        assert view(server, "slow.png") == 200
        assert (output / "slow.png").read_bytes() == kept
        (quarantined,) = server.private.joinpath("quarantine").rglob("nobodys.png")
        assert quarantined.read_bytes().startswith(b"a former server")
        assert "1 file without a record" in server.log()


def messages_of(guarded, graph, listener="frames"):
    """What a client hears while a job runs that it has sent with the client id `frames`."""

    async def listen():
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{guarded.address}/ws?clientId={listener}") as socket,
        ):
            body = {"prompt": once(graph), "extra_data": {"preview_method": "latent2rgb"}}
            body |= {"client_id": "frames"} if listener == "frames" else {}
            async with session.post(f"{guarded.address}/prompt", json=body) as answer:
                assert answer.status == 200, await answer.text()
            heard = []
            async for message in socket:
                heard.append(message.data if message.type == aiohttp.WSMsgType.BINARY else json.loads(message.data))
                told = heard[-1] if isinstance(heard[-1], dict) else {}
                waiting = told.get("data", {}).get("status", {}).get("exec_info", {}).get("queue_remaining")
                if told.get("type") == "execution_success" or (
                    listener != "frames" and waiting == 0 and len(heard) > 2
                ):
                    return heard

    with ThreadPoolExecutor(1) as own_thread:  # in the tests' own thread a browser's event loop may be running
        return own_thread.submit(asyncio.run, asyncio.wait_for(listen(), 60)).result()


def frames_sent(guarded, graph):
    """How many binary messages a client gets while its job runs."""
    return sum(isinstance(message, bytes) for message in messages_of(guarded, graph))


def test_frames_over_the_websocket_are_those_of_sampler_runs(guarded):
    graph = PromptGraph()
    save_latent(graph, sampled(graph), "beside")
    own = frames_sent(guarded, graph)
    assert own > 0
    graph.add("Hostile_FramesOverTheSocket", images=their_picture(guarded, graph))
    assert frames_sent(guarded, graph) == own


def test_a_refused_job_names_no_folder_of_the_server(guarded):
    graph = PromptGraph()
    graph.add("SaveImage", images=their_picture(guarded, graph), filename_prefix="theirs")
    done = guarded.client.run(once(graph))
    told = json.dumps(guarded.client.request(f"/history/{done.prompt_id}"))
    assert '"exception_type": "Refused"' in told
    assert str(guarded.base_directory) not in told


@pytest.mark.parametrize("how", ["list", "rows", "keys", "file", "few"])
def test_a_picture_that_a_node_shows_as_numbers(guarded, how):
    graph = PromptGraph()
    shown = graph.add("Hostile_ShowNumbers", images=their_picture(guarded, graph), how=how)
    graph.add("SaveImage", images=steered(graph), filename_prefix="beside")
    done = guarded.client.run(once(graph)).succeeded()
    told = done.outputs[shown.id]
    if how == "few":
        assert len(told["values"]) == 3
    else:
        assert "This text carries pictures and not words" in told["text"][0]
        assert sum(letter.isdigit() for letter in json.dumps(told)) < 100


def test_the_names_of_many_frames_are_no_picture(guarded):
    graph = PromptGraph()
    many = graph.add("RepeatImageBatch", image=steered(graph), amount=60)
    shown = graph.add("SaveImage", images=many[0], filename_prefix="2026-11-29/take_1_of_2")  # 6 numbers each
    done = guarded.client.run(once(graph)).succeeded()
    assert len(done.outputs[shown.id]["images"]) == 60


@pytest.mark.parametrize("slot", [0, 1], ids=["a list", "one by one"])
def test_a_picture_as_plain_numbers(guarded, slot):
    graph = PromptGraph()
    pixels = graph.add("Hostile_Pixels", images=their_picture(guarded, graph))
    shown = graph.add("PreviewAny", source=pixels[slot])
    graph.add("SaveImage", images=steered(graph), filename_prefix="beside")
    done = guarded.client.run(once(graph)).succeeded()
    assert sum(letter.isdigit() for letter in json.dumps(done.outputs[shown.id])) < 100


def test_a_preview_of_an_input_beside_an_output_that_core_has_cached(guarded):
    graph = PromptGraph()
    graph.add("SaveImage", images=steered(graph), filename_prefix="beside")
    guarded.client.run(once(graph)).succeeded()
    shown = graph.add("PreviewImage", images=their_picture(guarded, graph))
    for _ in range(2):
        done = guarded.client.run(graph.prompt).succeeded()
        assert "no sampler run of this server made it" in done.outputs[shown.id]["text"][0]


@pytest.mark.parametrize("how", ["base64", "address", "numbers", "words"])
def test_a_picture_in_a_message_of_a_pack(guarded, how):
    graph = PromptGraph()
    graph.add("Hostile_Tell", images=their_picture(guarded, graph), how=how)
    graph.add("SaveImage", images=steered(graph), filename_prefix="beside")
    heard = [message for message in messages_of(guarded, graph) if isinstance(message, dict)]
    assert ("hostile.tell" in {message["type"] for message in heard}) == (how == "words")


def test_a_job_without_a_client_is_told_to_nobody(guarded):
    """Core would tell everybody who listens, with the id by which the job can be read."""
    graph = PromptGraph()
    graph.add("SaveImage", images=steered(graph), filename_prefix="beside")
    heard = [message for message in messages_of(guarded, graph, listener="another") if isinstance(message, dict)]
    assert {message["type"] for message in heard} <= {"status", "feature_flags"}
