"""Category Mixer in a real server: what it mixes is what is steered, and what it leaves off is left alone."""

from __future__ import annotations

import pytest
import torch
from comfy_server import ComfyServer
from safety_steering_pack.commands.api_graph import PromptGraph
from safety_steering_pack.commands.comfy_client import Run
from steered_graphs import DEFAULTS, FAMILIES, Result, plain, put_vector, sample
from tiny.graphs import Link, Steer

CATEGORIES = ("violence", "gore")


@pytest.fixture(scope="module")
def vector_file(server: ComfyServer) -> str:
    return put_vector(server, "two_categories", FAMILIES["wan"].vector(categories=CATEGORIES))


def mixed(vector_file: str, preset: str, mix: str, **settings: object) -> Steer:
    """A function that puts Load Safety Vector, Category Mixer and Apply Safety Steering on a model link."""

    def apply(graph: PromptGraph, model: Link) -> Link:
        loaded = graph.add("SafetySteering_LoadSafetyVector", vector=vector_file)
        vector = graph.add("SafetySteering_CategoryMixer", safety_vector=loaded[0], preset=preset, mix=mix)
        chosen = DEFAULTS | {"hook_points": "conditioning"} | settings
        return graph.add("SafetySteering_ApplySafetySteering", chosen, model=model, safety_vector=vector[0])[0]

    return apply


def steered(server: ComfyServer, vector_file: str, preset: str, mix: str, **settings: object) -> Result:
    return sample(server, "wan", mixed(vector_file, preset, mix, **settings))


def moved(result: Result) -> set[str]:
    """The categories along which the first call was steered."""
    return set(result.calls[0]["hooks"][0]["shift_gaps"])


def test_a_mix_steers_what_it_names_and_nothing_else(server: ComfyServer, vector_file: str) -> None:
    both = steered(server, vector_file, "standard", "")
    written = steered(server, vector_file, "custom", "violence=1, gore=1")
    one = steered(server, vector_file, "standard", "gore=0")
    assert moved(both) == set(CATEGORIES)
    assert torch.equal(both.latent, written.latent)
    assert moved(one) == {"violence"}
    assert one.trace["settings"]["mix"] == {"violence": 1.0, "gore": 0.0}
    assert not torch.equal(one.latent, both.latent)


def test_a_preset_scales_as_strength_does(server: ComfyServer, vector_file: str) -> None:
    light = steered(server, vector_file, "light", "", strength=2.0)
    standard = steered(server, vector_file, "standard", "", strength=1.0)
    assert torch.equal(light.latent, standard.latent)


def test_off_leaves_the_model_as_it_was(server: ComfyServer, vector_file: str) -> None:
    off = steered(server, vector_file, "off", "")
    assert torch.equal(off.latent, plain(server, "wan"))
    assert off.trace["status"] == "off"


def shown(server: ComfyServer, vector_file: str, mix: str) -> tuple[Run, dict]:
    graph = PromptGraph()
    loaded = graph.add("SafetySteering_LoadSafetyVector", vector=vector_file)
    mixer = graph.add("SafetySteering_CategoryMixer", safety_vector=loaded[0], preset="custom", mix=mix)
    graph.add("PreviewAny", source=mixer[1])
    run = server.client.run(graph.prompt)
    return run, run.outputs.get(mixer.id, {})


def test_what_the_vector_lacks_is_said_on_the_node(server: ComfyServer, vector_file: str) -> None:
    run, output = shown(server, vector_file, "gore=1, hate=0.5")
    assert "NOT steered: hate=0.5" in "".join(run.succeeded().outputs["3"]["text"])
    assert "NOT steered: hate=0.5" in output["text"][0]
    assert output["mix"] == [{"weights": {"violence": 0.0, "gore": 1.0}, "unknown": {"hate": 0.5}}]


@pytest.mark.parametrize(
    ("mix", "sentence"),
    [
        ("violnce=1", "for nothing that this vector knows"),
        ("gore", "does not read as category=number"),
        ("", "is empty"),
        ("gore=1e30", "Weights go from -50 to 50"),
    ],
)
def test_a_mix_that_would_steer_nothing_stops_the_run(
    server: ComfyServer, vector_file: str, mix: str, sentence: str
) -> None:
    run, _ = shown(server, vector_file, mix)
    assert run.status == "error"
    assert run.error is not None
    assert sentence in run.error.message
