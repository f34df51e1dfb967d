"""Apply Safety Steering on a text encoder in a running ComfyUI: caches, the trace, and a CLIP that reads nothing."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from safety_steering_pack.commands.api_graph import PromptGraph
from steered_graphs import DEFAULTS, load_latent, put_vector
from tiny.models import TINY_MODELS
from tiny.vectors import random_vector

APPLY, REPORT = "SafetySteering_ApplySafetySteering", "SafetySteering_SteeringReport"
SEEDS = itertools.count(1)


@pytest.fixture(scope="module")
def vector_file(server):
    spaces = {"encoder.2": ("umt5xxl/encoder.2", 4096), "conditioning": ("umt5xxl.last", 4096)}
    vector = random_vector(spaces, family="wan", block_counts={})
    return put_vector(server, "inside_tiny_umt5", vector)


class Graph:
    """A tiny Wan and a tiny umT5 with one Apply Safety Steering on both."""

    def __init__(self, server, vector_file, **settings) -> None:
        self.server, self.graph = server, PromptGraph()
        self.model = self.add("UNETLoader", unet_name=TINY_MODELS["wan21_t2v"].file_name, weight_dtype="default")
        self.plain = self.add("SafetySteeringDev_TinyUmT5")
        vector = self.add("SafetySteering_LoadSafetyVector", vector=vector_file)
        chosen = (
            DEFAULTS | {"strength": 40.0, "norm": "none", "hook_points": "encoder.2", "clip": self.plain} | settings
        )
        self.applied = self.graph.add(APPLY, chosen, model=self.model, safety_vector=vector)
        self.apply, self.clip = self.applied.id, self.applied[1]

    def add(self, node, **inputs):
        return self.graph.add(node, **inputs)[0]

    def sample(self, clip, seed, words="a small tree by the river"):
        text = self.add("CLIPTextEncode", clip=clip, text=words)
        settings = {"seed": seed, "steps": 2, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple"}
        latent = self.add("EmptyHunyuanLatentVideo", width=64, height=64, length=5, batch_size=1)
        prompts = {"positive": text, "negative": text}
        return self.add("KSampler", denoise=1.0, model=self.applied[0], latent_image=latent, **prompts, **settings)

    def kept(self, samples):
        return self.add("SaveLatent", samples=samples, filename_prefix="inside")[0]

    def report(self, samples):
        return self.add("PreviewAny", source=[self.add(REPORT, model=self.applied[0], samples=samples)[0], 1])[0]

    def run(self):
        return self.server.client.run(self.graph.prompt)


def traces(run, apply):
    return [e["data"] for e in run.events if e["type"] == "safety_steering.trace" and e["data"]["node"] == apply]


def sampled(server, vector_file, seed, steered=True, **settings):
    graph = Graph(server, vector_file, **settings)
    kept = graph.kept(graph.sample(graph.clip if steered else graph.plain, seed))
    run = graph.run().succeeded()
    return load_latent(server, run, kept), run, graph


def test_a_steered_clip_changes_the_video_and_strength_0_does_not(server, vector_file):
    seed = next(SEEDS)
    plain, run, graph = sampled(server, vector_file, seed, strength=0.0)
    assert not traces(run, graph.apply)
    latent, run, graph = sampled(server, vector_file, seed)
    assert not torch.equal(latent, plain)
    (told,) = traces(run, graph.apply)
    assert (told["status"], told["texts"], told["hook_points"]) == ("acted", True, ["encoder.2"])
    assert told["summary"].startswith("Moved the states at encoder.2 in the text encoder by ")
    unsteered, _, _ = sampled(server, vector_file, seed, steered=False)
    assert torch.equal(unsteered, plain)


def test_a_changed_strength_is_encoded_anew_and_an_equal_one_comes_from_the_cache(server, vector_file):
    seed = next(SEEDS)
    weak, _, _ = sampled(server, vector_file, seed, strength=10.0)
    strong, run, graph = sampled(server, vector_file, seed, strength=40.0)
    assert not torch.equal(weak, strong)
    assert [told["status"] for told in traces(run, graph.apply)] == ["acted"]
    _, again, graph = sampled(server, vector_file, seed + 1000, strength=40.0)
    assert not traces(again, graph.apply)  # the prompt came from the cache; another seed is no lost steering


def test_the_report_has_the_texts_also_from_the_cache(server, vector_file):
    for seed in (next(SEEDS), next(SEEDS)):
        graph = Graph(server, vector_file, strength=21.0)
        shown = graph.report(graph.sample(graph.clip, seed))
        (trace,) = json.loads(graph.run().succeeded().text(shown))
        assert (trace["status"], trace["texts"]) == ("acted", True)


def test_one_apply_steers_both_and_both_are_reported(server, vector_file):
    graph = Graph(server, vector_file, hook_points="all", strength=3.0)
    shown = graph.report(graph.sample(graph.clip, next(SEEDS)))
    inside, model = json.loads(graph.run().succeeded().text(shown))
    assert (inside["texts"], model["texts"]) == (True, False)
    assert inside["status"] == model["status"] == "acted"


@pytest.mark.parametrize("hook_points", ["encoder.2", "all"])
def test_a_steered_clip_that_reads_no_prompt_is_told_and_refused_by_the_report(server, vector_file, hook_points):
    graph = Graph(server, vector_file, hook_points=hook_points)
    samples = graph.sample(graph.plain, next(SEEDS))
    graph.kept(samples)
    run = graph.run().succeeded()
    told = traces(run, graph.apply)[-1]
    assert told["status"] == "no run"
    assert f"KSampler (node {samples[0]}) ran without a prompt that it has read" in told["summary"]
    assert "Warning: Nothing was steered: the text encoder is steered" in " ".join(run.outputs[graph.apply]["text"])
    graph.report(samples)
    with pytest.raises(RuntimeError, match=rf"without the steering of Apply Safety Steering \(node {graph.apply}\)"):
        graph.run().succeeded()


def test_a_clip_that_other_nodes_hand_on_is_steered(server, vector_file):
    graph = Graph(server, vector_file)
    last = graph.add("CLIPSetLastLayer", clip=graph.clip, stop_at_clip_layer=-2)
    options = graph.add("T5TokenizerOptions", clip=last, min_padding=0, min_length=64)
    graph.kept(graph.sample(options, next(SEEDS)))
    run = graph.run().succeeded()
    assert [told["status"] for told in traces(run, graph.apply)] == ["acted"]


def test_nodes_that_only_hand_on_or_look_are_told_nothing(server, vector_file):
    lora = {"lora_unet_none.lora_up.weight": torch.zeros(4, 1), "lora_unet_none.lora_down.weight": torch.zeros(1, 4)}
    (server.models / "loras").mkdir(exist_ok=True)
    save_file(lora, server.models / "loras" / "of_no_layer.safetensors")
    graph = Graph(server, vector_file)
    loaded = graph.graph.add(
        "LoraLoader",
        model=graph.applied[0],
        clip=graph.clip,
        lora_name="of_no_layer.safetensors",
        strength_model=1.0,
        strength_clip=1.0,
    )
    text = graph.add("CLIPTextEncode", clip=loaded[1], text="the dog runs up a hill")
    guider = graph.add("BasicGuider", model=loaded[0], conditioning=text)
    sigmas = graph.add("BasicScheduler", model=loaded[0], scheduler="simple", steps=2, denoise=1.0)
    latent = graph.add("EmptyHunyuanLatentVideo", width=64, height=64, length=5, batch_size=1)
    noise = graph.add("RandomNoise", noise_seed=next(SEEDS))
    sampler = graph.add("KSamplerSelect", sampler_name="euler")
    graph.kept(
        graph.add(
            "SamplerCustomAdvanced", noise=noise, guider=guider, sampler=sampler, sigmas=sigmas, latent_image=latent
        )
    )
    run = graph.run().succeeded()
    assert [told["status"] for told in traces(run, graph.apply)] == ["acted"]


def test_a_vector_inside_the_encoder_without_clip_is_refused(server, vector_file):
    graph = Graph(server, vector_file)
    del graph.graph.prompt[graph.apply]["inputs"]["clip"]
    graph.kept(graph.sample(graph.plain, next(SEEDS)))
    with pytest.raises(RuntimeError, match=r"steers inside the text encoder \(encoder.2\). Connect the text encoder"):
        graph.run().succeeded()


def test_safe_model_gives_a_steered_clip(server):
    spaces = {"encoder.2": ("umt5xxl/encoder.2", 4096)}
    vector = random_vector(spaces, family="wan", block_counts={})
    recommended = replace(vector.info.suggestion, strength=40.0, intervention="add", gate="off", basis="benign only")
    name = put_vector(server, "inside_recommended", vector.with_info(suggestion=recommended))
    graph = Graph(server, name)
    safe = graph.graph.add(
        "SafetySteering_SafeModel", model=graph.model, vector=name, level=1.0, mix="", clip=graph.plain
    )
    text = graph.add("CLIPTextEncode", clip=safe[1], text="men and women at sea")
    graph.add("PreviewAny", source=text)
    run = graph.run().succeeded()
    assert [told["status"] for told in traces(run, safe.id)] == ["acted"]
