"""What a guarded server says about its outputs, and the output gate, in the real server."""

from __future__ import annotations

import json

import pytest
from guarded import KEY, gate, once, sample_guarded
from PIL import Image, ImageChops
from safety_steering_pack.commands.api_graph import PromptGraph
from safety_steering_pack.guardrail.errors import EvidenceError
from safety_steering_pack.guardrail.evidence import sidecar_of, verify_file
from safety_steering_pack.guardrail.output_gate import notice_image
from steered_graphs import FAMILIES
from tiny.graphs import save_latent
from tiny.models import TINY_MODELS

WAN = FAMILIES["wan"]
TALL, WIDE = {"width": 64, "height": 96}, {"width": 96, "height": 64}


def pictures(**options):
    """Text to video, saved as pictures; the node that saves them."""
    graph = PromptGraph()
    sampled = WAN.graph(graph, **{"steps": 2, "length": 5, **options})
    vae = graph.add("VAELoader", vae_name=TINY_MODELS["wan_vae"].file_name)
    decoded = graph.add("VAEDecode", samples=sampled.samples, vae=vae[0])
    return graph, decoded, graph.add("SaveImage", images=decoded[0], filename_prefix="picture")


def test_every_output_is_signed(guarded):
    key = guarded.status()["public_key"]
    graph, decoded, _ = pictures()
    graph.add("PreviewImage", images=decoded[0])
    run = guarded.client.run(once(graph)).succeeded()
    files, record = guarded.output_files(run), guarded.record_of(run)
    assert len(files) == len(record["outputs"]) == 10
    for path in files:
        signed = verify_file(path, [key])
        assert signed in record["outputs"]
        assert (signed["verdict"], signed["prompt_id"]) == ("steered", run.prompt_id)
        assert signed["policy_sha256"] == guarded.status()["policy"]["sha256"]
        assert signed["vectors"] == record["vectors"]
    one, other = files[:2]
    sidecar_of(other).write_bytes(sidecar_of(one).read_bytes())
    with pytest.raises(EvidenceError, match="is not the file that was signed"):
        verify_file(other, [key])
    one.write_bytes(one.read_bytes() + b"\n")
    with pytest.raises(EvidenceError, match="is not the file that was signed"):
        verify_file(one, [key])


def test_the_key_never_leaves_the_server(guarded):
    sample_guarded(guarded)
    assert KEY not in json.dumps(guarded.status())
    assert KEY not in guarded.log()
    assert KEY not in json.dumps(guarded.audit)


def test_prompt_text_is_recorded_only_if_asked_for(guarded):
    assert sample_guarded(guarded, prompt="a very private fox").record["prompt"] is None
    assert "private fox" not in json.dumps(guarded.audit)
    guarded.set_policy(audit={"log_prompt_text": True})
    assert "a very private fox" in sample_guarded(guarded, prompt="a very private fox").record["prompt"]


def same_picture(path, expected):
    return ImageChops.difference(Image.open(path).convert("RGB"), expected).getbbox() is None


def test_the_gate_puts_a_notice_in_the_place_of_what_it_holds_back(guarded):
    guarded.set_policy(output_gate=gate("notice"))
    graph, _, _ = pictures(**TALL)
    run = guarded.client.run(once(graph)).succeeded()
    record = guarded.record_of(run)
    assert (record["verdict"], record["decision"]) == ("steered", "replaced")
    assert record["reason"] == "Frame 0 scored 0.900 for 'violence'."
    assert {output["decision"] for output in record["outputs"]} == {"replaced"}
    assert all(same_picture(path, notice_image(64, 96)) for path in guarded.output_files(run))
    graph, _, _ = pictures(**WIDE)
    run = guarded.client.run(once(graph)).succeeded()
    assert guarded.record_of(run)["decision"] == "delivered"
    assert not any(same_picture(path, notice_image(96, 64)) for path in guarded.output_files(run))


def test_the_gate_sees_videos(guarded):
    guarded.set_policy(output_gate=gate("notice"))
    for sizes, decision in ((TALL, "replaced"), (WIDE, "delivered")):
        graph, decoded, saved = pictures(**sizes)
        del graph.prompt[saved.id]
        video = graph.add("CreateVideo", images=decoded[0], fps=8.0)
        graph.add("SaveVideo", video=video[0], filename_prefix="video", format="auto", codec="auto")
        run = guarded.client.run(once(graph)).succeeded()
        assert guarded.record_of(run)["decision"] == decision
        assert len(guarded.output_files(run)) == 1


@pytest.mark.parametrize(
    ("mode", "judge", "words"),
    [
        ("fail", "score", "The output gate held this back. Frame 0 scored 0.900"),
        ("notice", "broken", "The host's judge could not judge these pictures: the judge is out of order"),
        ("notice", "nowhere", "The host's judge could not judge these pictures"),
    ],
)
def test_the_gate_fails_the_job(guarded, mode, judge, words):
    guarded.set_policy(output_gate=gate(mode, judge))
    graph, _, _ = pictures(**TALL)
    run = guarded.client.run(once(graph))
    assert words in run.error.message
    record = guarded.record_of(run)
    assert (record["decision"], record["outputs"]) == ("refused", [])
    assert guarded.output_files(run) == ()


def test_the_gate_lets_nothing_out_that_it_cannot_see(guarded):
    guarded.set_policy(output_gate=gate("notice"))
    graph = PromptGraph()
    save_latent(graph, WAN.graph(graph, steps=2).samples, "unseen")
    run = guarded.client.run(once(graph))
    assert "The output gate could not see what this node wrote" in run.error.message
    assert not list((guarded.base_directory / "output").rglob("unseen*"))


def save_film(graph, images):
    """A film with sound."""
    sound = graph.add("EmptyAudio", duration=1.0, sample_rate=44100, channels=2)
    video = graph.add("CreateVideo", images=images, fps=8.0, audio=sound[0])
    graph.add("SaveVideo", video=video[0], filename_prefix="film", format="auto", codec="auto")


def test_sound_is_not_judged(guarded):
    guarded.set_policy(unsampled="flag", output_gate=gate("notice"))
    graph, decoded, saved = pictures(**WIDE)
    del graph.prompt[saved.id]
    save_film(graph, decoded[0])
    run = guarded.client.run(once(graph))
    assert "could not see what this node wrote (sound)" in run.error.message
    assert guarded.record_of(run)["outputs"] == []
    guarded.set_policy(unsampled="flag", output_gate=gate("notice") | {"unjudged": "flag"})
    for sizes, decision in ((WIDE, "delivered"), (TALL, "replaced")):
        graph, decoded, saved = pictures(**sizes)
        del graph.prompt[saved.id]
        save_film(graph, decoded[0])
        run = guarded.client.run(once(graph)).succeeded()
        (output,) = guarded.record_of(run)["outputs"]
        assert (output["unjudged"], output["decision"], output["format_version"]) == (["sound"], decision, 3)
        assert verify_file(guarded.output_files(run)[0], [guarded.status()["public_key"]]) == output


@pytest.mark.parametrize("kind", ["latents", "sound"])
def test_files_without_frames_are_flagged_where_the_policy_lets_them(guarded, kind):
    guarded.set_policy(unsampled="flag", output_gate=gate("notice") | {"unjudged": "flag"})
    graph = PromptGraph()
    if kind == "latents":
        save_latent(graph, WAN.graph(graph, steps=2).samples, "unseen")
    else:
        sound = graph.add("EmptyAudio", duration=1.0, sample_rate=44100, channels=2)
        graph.add("SaveAudio", audio=sound[0], filename_prefix="unseen")
    record = guarded.record_of(guarded.client.run(once(graph)).succeeded())
    assert [output["unjudged"] for output in record["outputs"]] == [[kind]]


def streams_of(path):
    import av

    with av.open(str(path)) as container:
        return [stream.type for stream in container.streams]


def test_nothing_in_a_film_leaves_past_the_gate(guarded):
    """A film of the client's with a second picture stream, which ComfyUI would copy into the output."""
    import av

    path = guarded.base_directory / "input" / "two.mp4"
    with av.open(str(path), "w") as container:
        sizes = ((96, 64), (64, 96))
        for width, height in sizes:
            stream = container.add_stream("h264", rate=8)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for (width, height), stream in zip(sizes, container.streams, strict=True):
            for _ in range(3):
                container.mux(stream.encode(av.VideoFrame(width, height, "yuv420p")))
            container.mux(stream.encode())
    assert streams_of(path) == ["video", "video"]
    guarded.set_policy(unsampled="flag", output_gate=gate("notice"))
    graph = PromptGraph()
    loaded = graph.add("LoadVideo", file="two.mp4")
    graph.add("SaveVideo", video=loaded[0], filename_prefix="two", format="auto", codec="auto")
    run = guarded.client.run(graph.prompt).succeeded()
    assert [streams_of(file) for file in guarded.output_files(run)] == [["video"]]


def test_the_gate_judges_what_was_never_sampled(guarded):
    guarded.set_policy(unsampled="flag", output_gate=gate("notice"))
    graph = PromptGraph()
    picture = graph.add("EmptyImage", width=64, height=96, batch_size=1, color=0xFF0000)
    graph.add("SaveImage", images=picture[0], filename_prefix="theirs")
    run = guarded.client.run(graph.prompt).succeeded()
    record = guarded.record_of(run)
    assert (record["verdict"], record["decision"]) == ("not sampled here", "replaced")
    assert same_picture(guarded.output_files(run)[0], notice_image(64, 96))


def test_the_gate_judges_every_channel(guarded, comfy_in_process):
    """What is hidden in the transparency, in a mask or in a further channel; the judge holds tall frames back."""
    import torch
    from safety_steering_pack.bridge.enforcement.jobs.gate import _views, gate_inputs
    from safety_steering_pack.safety_steering.errors import SafetySteeringError

    assert [view.shape[-1] for view in _views(torch.zeros(1, 4, 4, 6))] == [3, 3, 3, 3]
    assert [view.shape[-1] for view in _views(torch.zeros(2, 4, 4, 1))] == [3]
    with pytest.raises(SafetySteeringError, match="cannot judge a tensor of shape"):
        gate_inputs({"a": [torch.zeros(1, 2, 3, 4, 5)]}, None)
    guarded.set_policy(unsampled="flag", output_gate=gate("notice"))
    graph = PromptGraph()
    graph.add("MaskPreview", mask=graph.add("SolidMask", value=0.5, width=64, height=96)[0])
    run = guarded.client.run(graph.prompt).succeeded()
    assert guarded.record_of(run)["decision"] == "replaced"
