"""Previews of 3D shapes on a guarded server: a background that was steered is shown, whatever the shape beside it."""

from __future__ import annotations

import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from attack_graphs import pictures, sampled, their_picture
from guarded import gate, once
from safety_steering_pack.commands.api_graph import PromptGraph
from safety_steering_pack.guardrail.evidence import verify_file

SHAPE = "o triangle\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"
GATE = gate("notice")


def steered(graph):
    return pictures(graph, sampled(graph))


def shape(guarded, graph, name="triangle.obj"):
    """A shape that the client has uploaded: its path, and the shape itself."""
    path = guarded.base_directory / "input" / "3d" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(SHAPE)
    theirs = "theirs.png"
    their_picture(guarded, graph)
    scene = {"image": theirs, "mask": theirs, "normal": theirs, "recording": "", "camera_info": {}}
    loaded = graph.add("Load3D", model_file=f"3d/{name}", image=scene, width=64, height=64)
    return loaded[2], loaded[6]


def previewed(guarded, graph, model, background, **inputs):
    preview = graph.add("Preview3D", model_file=model, bg_image=background, **inputs)
    graph.add("SaveImage", images=steered(graph), filename_prefix="beside")
    run = guarded.client.run(once(graph)).succeeded()
    assert guarded.record_of(run)["decision"] == "delivered"
    shown = run.outputs[preview.id]
    return run, shown["result"], shown.get("text", [])


def served(guarded, kind, name):
    query = urllib.parse.urlencode({"filename": Path(name).name, "type": kind})
    try:
        with urllib.request.urlopen(f"{guarded.address}/view?{query}", timeout=30) as response:
            return response.status == 200
    except urllib.error.HTTPError:
        return False


@pytest.mark.parametrize("judging", [{}, {"output_gate": GATE}], ids=["open", "gated"])
@pytest.mark.parametrize("model", ["none", "path", "shape"])
def test_a_steered_background_is_shown(guarded, model, judging):
    guarded.set_policy(**judging)
    graph = PromptGraph()
    path, loaded = shape(guarded, graph)
    background = steered(graph)
    run, (file, _, picture), told = previewed(
        guarded, graph, {"none": "", "path": path, "shape": loaded}[model], background, camera_info={"zoom": 1.5}
    )
    assert served(guarded, "temp", picture)
    path = guarded.base_directory / "temp" / Path(picture).name
    record = verify_file(path, [guarded.status()["public_key"]])
    assert (record["verdict"], record["client_inputs"], "unjudged" in record) == ("steered", [], False)
    assert len(guarded.record_of(run)["outputs"]) == 2
    if model == "shape":  # the client's shape is left out, and the job goes on
        assert file == ""
        assert "no sampler run of this server made it" in told[0]
        assert not list((guarded.base_directory / "output").glob("preview3d_*"))
    else:
        assert (file, told) == ({"none": "", "path": "3d/triangle.obj"}[model], [])


def test_a_background_of_the_client_is_left_out(guarded):
    graph = PromptGraph()
    _, (_, _, picture), told = previewed(guarded, graph, "", their_picture(guarded, graph))
    assert picture == ""
    assert "no sampler run of this server made it" in told[0]


def test_a_picture_in_the_place_of_a_shape_is_not_taken_for_the_background(guarded):
    graph = PromptGraph()
    _, loaded = shape(guarded, graph, "picture.png")
    _, (file, _, picture), _ = previewed(guarded, graph, loaded, steered(graph))
    assert (file, served(guarded, "temp", picture)) == ("", True)
    assert not list((guarded.base_directory / "output").glob("preview3d_*"))


def test_a_shape_beside_a_judged_picture_is_not_judged(guarded):
    guarded.set_policy(unsampled="flag", output_gate=GATE)
    graph = PromptGraph()
    _, loaded = shape(guarded, graph)
    _, (file, _, picture), told = previewed(guarded, graph, loaded, steered(graph))
    assert (file, served(guarded, "temp", picture)) == ("", True)
    assert "could not see what this node wrote (3D shapes)" in told[0]
    guarded.set_policy(unsampled="flag", output_gate=GATE | {"unjudged": "flag"})
    graph = PromptGraph()
    _, loaded = shape(guarded, graph)
    run, (file, _, _), _ = previewed(guarded, graph, loaded, steered(graph))
    assert served(guarded, "output", file)
    unjudged = [output.get("unjudged") for output in guarded.record_of(run)["outputs"]]
    assert sorted(map(str, unjudged)) == ["None", "None", "['3D shapes']"]


def test_the_advanced_preview_shows_a_shape_where_the_policy_lets_it(guarded):
    guarded.set_policy(unsampled="flag")
    graph = PromptGraph()
    _, loaded = shape(guarded, graph)
    size = {"width": 64, "height": 64, "viewport_state": {}}
    preview = graph.add("Preview3DAdvanced", size, model_3d=loaded)
    run = guarded.client.run(graph.prompt).succeeded()
    assert served(guarded, "temp", run.outputs[preview.id]["result"][0])
    guarded.set_policy()
    graph.add("SaveImage", images=steered(graph), filename_prefix="beside")
    run = guarded.client.run(once(graph)).succeeded()
    assert run.outputs[preview.id]["result"][0] == ""
    assert "no sampler run of this server made it" in run.outputs[preview.id]["text"][0]
