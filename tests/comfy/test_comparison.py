"""Safety A/B and Strength Grid: their sides are what KSampler makes with and without steering, from the same noise."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from comfy_server import ComfyServer
from PIL import Image
from safetensors.torch import save_file
from safety_steering_pack.commands.api_graph import NodeRef, PromptGraph
from safety_steering_pack.commands.comfy_client import PromptRejected, Run
from steered_graphs import FAMILIES, apply_vector, patch, put_vector, random_file
from tiny.graphs import wan21_t2v
from tiny.models import TINY_MODELS

SAMPLER = {"seed": 3, "steps": 2, "cfg": 6.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
AB, GRID = "SafetySteering_SafetyAB", "SafetySteering_StrengthGrid"
APPLY = "SafetySteering_ApplySafetySteering"


def compare(graph: PromptGraph, kind: str, steering: Callable | None, key: str = "wan", **options: Any) -> NodeRef:
    """Put a comparison in the place of a family's KSampler. Options are its widgets and the sizes of the graph."""
    inputs = {name: options.pop(name) for name in ("length", "width", "height") if name in options}
    FAMILIES[key].graph(graph, steering, **inputs)
    sampler = next(node for node in graph.prompt.values() if node["class_type"] == "KSampler")
    vae = graph.add("VAELoader", vae_name=options.pop("vae_name", TINY_MODELS["wan_vae"].file_name))
    sampler["inputs"] |= {**SAMPLER, **options, "vae": vae[0], "fps": 8.0}
    sampler["class_type"] = kind
    return NodeRef(next(id_ for id_, node in graph.prompt.items() if node is sampler))


def save(graph: PromptGraph, images: list, name: str) -> NodeRef:
    return graph.add("SaveImage", images=images, filename_prefix=f"comparison/{name}")


def pixels(server: ComfyServer, run: Run, node: NodeRef) -> np.ndarray:
    """The pictures that a node shows, as int16 (T, H, W, 3)."""
    files = [server.output_file(shown) for shown in run.outputs[node.id]["images"]]
    return np.stack([np.asarray(Image.open(file).convert("RGB"), dtype=np.int16) for file in files])


def by_ksampler(server: ComfyServer, steering: Callable | None) -> np.ndarray:
    graph = PromptGraph()
    sampled = wan21_t2v(graph, steering, **SAMPLER)
    vae = graph.add("VAELoader", vae_name=TINY_MODELS["wan_vae"].file_name)
    node = save(graph, graph.add("VAEDecode", samples=sampled.samples, vae=vae[0])[0], "ksampler")
    return pixels(server, server.client.run(graph.prompt).succeeded(), node)


def two_categories(server: ComfyServer) -> str:
    return put_vector(server, "two_categories", FAMILIES["wan"].vector(categories=("violence", "gore"), gap=9.0))


@pytest.fixture(scope="module")
def compared(server: ComfyServer) -> tuple[Run, PromptGraph, dict[str, NodeRef]]:
    """One run of Safety A/B, its graph, and the nodes that save its outputs."""
    graph = PromptGraph()
    steering = apply_vector(random_file(server, "wan"), strength=4.0)
    node = compare(graph, AB, steering)
    nodes = {
        "ab": node,
        "unsteered": save(graph, node[2], "unsteered"),
        "steered": save(graph, node[3], "steered"),
        "both": save(graph, node[0], "both"),
        "video": graph.add("SaveVideo", video=node[1], filename_prefix="comparison/video", format="auto", codec="auto"),
    }
    return server.client.run(graph.prompt).succeeded(), graph, nodes


def test_the_sides_are_what_ksampler_makes(server, compared):
    run, _, nodes = compared
    plain, steered = pixels(server, run, nodes["unsteered"]), pixels(server, run, nodes["steered"])
    # KSampler's pictures are cut to 8 bits, ours rounded: one step of brightness
    assert np.abs(plain - by_ksampler(server, None)).max() <= 1
    assert np.abs(steered - by_ksampler(server, apply_vector(random_file(server, "wan"), strength=4.0))).max() <= 1
    assert np.abs(plain - steered).max() > 20


def test_both_sides_are_shown_and_can_be_saved(server, compared):
    run, _, nodes = compared
    shown = run.outputs[nodes["ab"].id]
    for picture in shown["images"]:
        with Image.open(server.output_file(picture)) as opened:
            assert (opened.size, opened.n_frames) == ((64, 64), 9)
    film = server.output_file(shown["safety_ab"][0]["film"])
    assert film.stat().st_size > 1000
    assert "in 2 of 2 steps" in shown["text"][0]
    plain, steered = pixels(server, run, nodes["unsteered"]), pixels(server, run, nodes["steered"])
    share = float(re.fullmatch(r"The sides differ by (.+) % of the pixels' range\.", shown["text"][1])[1])
    assert share == pytest.approx(100 * np.abs(plain - steered).mean() / 255, abs=0.3)  # SaveImage cuts, we round
    both = pixels(server, run, nodes["both"])
    assert both.shape[0] == 9
    assert both.shape[2] > 2 * 64
    assert server.output_file(run.outputs[nodes["video"].id]["images"][0]).stat().st_size > 1000


def test_the_browser_that_asked_is_told_what_steering_did(compared):
    run, graph, nodes = compared
    (told,) = [event["data"] for event in run.events if event["type"] == "safety_steering.trace"]
    assert graph.prompt[told["node"]]["class_type"] == APPLY
    assert (told["status"], told["steps"], told["steered_steps"]) == ("acted", 2, 2)
    assert told["hook_points"] == ["block.blocks.2.image"]
    assert [entry["note"] for entry in told["series"]] == ["", ""]
    assert all(entry["after"] > entry["before"] and entry["shift"] > 0 for entry in told["series"])
    assert told["summary"] in run.text(nodes["ab"].id)
    # the node's ui tells it too: ComfyUI sends that again when all comes out of the cache
    (kept,) = run.outputs[nodes["ab"].id]["safety_steering_traces"]
    assert {"node": told["node"], **kept} == told


@pytest.mark.parametrize(("gate", "words"), [("off", "Warning: the sides are identical"), ("pooled", "The sides are")])
def test_identical_sides_are_told_and_a_warning_if_something_was_found(server, gate, words):
    """Too weak to be seen; and a gate that stays shut."""
    graph = PromptGraph()
    settings = {"gate": gate, **({"gate.threshold": -10.0} if gate == "pooled" else {})}
    node = compare(graph, AB, apply_vector(random_file(server, "wan"), strength=1e-9, **settings), length=1)
    _, difference = server.client.run(graph.prompt).succeeded().outputs[node.id]["text"]
    assert difference.startswith(words)


def put_image_vae(server: ComfyServer) -> str:
    """A small VAE for pictures, of random weights; its name in VAELoader."""
    from comfy.taesd.taesd import TAESD

    model = TAESD(latent_channels=16)
    folder = server.models / "vae_approx"
    folder.mkdir(exist_ok=True)
    for part in ("encoder", "decoder"):
        save_file(getattr(model, f"taesd_{part}").state_dict(), folder / f"taef1_{part}.safetensors")
    return "taef1"


def test_a_picture_is_shown_as_pictures(server, comfy_in_process):
    graph = PromptGraph()
    steering = apply_vector(random_file(server, "flux"), strength=4.0)
    node = compare(graph, AB, steering, "flux", cfg=1.0, vae_name=put_image_vae(server))
    shown = server.client.run(graph.prompt).succeeded().outputs[node.id]
    assert shown["safety_ab"] == [{"film": None}]
    assert [entry["filename"].rsplit(".")[-1] for entry in shown["images"]] == ["png", "png"]


def test_a_grid_has_a_row_for_each_category_and_renders_strength_0_once(server):
    graph = PromptGraph()
    rows = {"strengths": "0, 3", "categories": "all; violence=1, gore=1", "cell_width": 48}
    node = compare(graph, GRID, apply_vector(two_categories(server)), length=1, **rows)
    saved = save(graph, node[0], "grid")
    run = server.client.run(graph.prompt).succeeded()
    lines = run.text(node.id).splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "unsteered",
        "violence, strength 3",
        "gore, strength 3",
        "violence=1, gore=1, strength 3",
    ]
    assert lines[0].endswith("strength is 0.")
    assert all("in 2 of 2 steps" in line for line in lines[1:])
    (picture,) = pixels(server, run, saved)
    assert picture.shape[0] > 3 * 48
    assert picture.shape[1] > 2 * 48


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"strengths": "none"}, "strengths are 'none'. Write numbers separated by commas"),
        ({"categories": "nonsense"}, "names 'nonsense', which this vector lacks"),
        ({"strengths": ", ".join(map(str, range(101)))}, "more than 100 cells"),
    ],
)
def test_bad_words_for_a_grid_are_told_in_a_sentence(server, settings, sentence):
    graph = PromptGraph()
    words = {"strengths": "1", "categories": "", "cell_width": 64, **settings}
    compare(graph, GRID, apply_vector(two_categories(server)), length=1, **words)
    run = server.client.run(graph.prompt)
    assert run.error is not None
    assert sentence in run.error.message


def test_a_model_that_is_not_steered_is_told_in_a_sentence(server):
    graph = PromptGraph()
    compare(graph, AB, None, length=1)
    error = server.client.run(graph.prompt).error
    assert error is not None
    assert "Connect the model from Apply Safety Steering" in error.message


def test_a_comparison_shows_one_bar_and_can_be_interrupted(server):
    graph = PromptGraph()
    steering = apply_vector(random_file(server, "wan"))
    slow = patch("SafetySteeringDev_Fail", fail_at_call=0, seconds_per_call=0.2)
    compare(graph, AB, lambda g, model: steering(g, slow(g, model)), length=1, steps=20)
    prompt_id = server.client.submit(graph.prompt)
    progress = server.client.wait_for(prompt_id, "progress")
    assert progress["max"] == 40
    server.client.interrupt()
    assert server.client.result(prompt_id).status == "interrupted"


def test_a_guarded_server_refuses_comparisons(guarded):
    guarded.set_policy(permits={"unlisted_vectors": True})
    graph = PromptGraph()
    compare(graph, AB, apply_vector(random_file(guarded, "wan")), length=1)
    with pytest.raises(PromptRejected) as refused:
        guarded.client.submit(graph.prompt)
    assert "SafetySteering_SafetyAB" in refused.value.error["message"]


def test_a_guarded_server_that_permits_them_writes_no_previews(guarded):
    permits = dict.fromkeys(("fit_and_save_nodes", "merge_and_save_models", "unlisted_vectors"), True)
    guarded.set_policy(permits=permits, unsampled="flag")
    graph = PromptGraph()
    node = compare(graph, AB, apply_vector(random_file(guarded, "wan")), length=1)
    run = guarded.client.run(graph.prompt).succeeded()
    assert set(run.outputs[node.id]) == {"text", "safety_steering_traces"}  # words and numbers
