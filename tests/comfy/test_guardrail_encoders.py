"""A policy whose vector steers inside the text encoder: every prompt of its models is read so, or the job refused."""

from __future__ import annotations

import pytest
import torch
from guarded import PolicyRule, outcome, refusal_of
from safety_steering_pack.commands.api_graph import PromptGraph
from steered_graphs import DEFAULTS, load_latent, put_vector, run_anew
from tiny.models import TINY_MODELS
from tiny.vectors import random_vector

HOST = "Only the host can change that: by offering the text encoder that the rule's vector was made for"
SPACES = {"encoder.2": ("umt5xxl/encoder.2", 4096)}


def rule(**changes):
    vector = random_vector({**SPACES, "conditioning": ("umt5xxl.last", 4096)}, family="wan", block_counts={})
    return PolicyRule(**{"made": vector, "hook_points": ("encoder.2",), "strength": 40.0, **changes})


class Graph:
    """A tiny Wan whose prompts come from CLIPs or from elsewhere."""

    def __init__(self) -> None:
        self.graph = PromptGraph()
        self.clip = self.add("SafetySteeringDev_TinyUmT5")

    def add(self, node, *args, **inputs):
        return self.graph.add(node, *args, **inputs)[0]

    def text(self, words="men and women at sea", clip=None):
        return self.add("CLIPTextEncode", clip=clip or self.clip, text=words)

    def model(self):
        return self.add("UNETLoader", unet_name=TINY_MODELS["wan21_t2v"].file_name, weight_dtype="default")

    def latent(self):
        return self.add("EmptyHunyuanLatentVideo", width=64, height=64, length=5, batch_size=1)

    def save(self, samples):
        return self.add("SaveLatent", samples=samples, filename_prefix="guarded")[0]

    def saved(self, positive, negative=None, seed=1):
        model, latent = self.model(), self.latent()
        settings = {"seed": seed, "steps": 2, "cfg": 2.0, "sampler_name": "euler", "scheduler": "simple"}
        prompts = {"positive": positive, "negative": negative or positive}
        samples = self.add("KSampler", denoise=1.0, model=model, latent_image=latent, **prompts, **settings)
        return self.save(samples)


def ran(server, graph, saved):
    return outcome(server, graph.graph, saved)


def test_a_rule_inside_the_encoder_steers_every_prompt_and_is_recorded(guarded):
    guarded.set_policy((rule(),))
    graph = Graph()
    done = ran(guarded, graph, graph.saved(graph.text(), graph.text("a small tree")))
    assert (done.record["verdict"], done.record["decision"]) == ("steered", "delivered")
    assert done.record["blocks"] == ["encoder.2"]
    assert done.record["vectors"]
    (projection,) = done.record["projections"]
    assert projection["after"] > projection["before"]
    again = Graph()  # the prompts come out of core's cache, and the job is steered all the same
    repeated = ran(guarded, again, again.saved(again.text(), again.text("a small tree"), seed=2))
    assert (repeated.record["verdict"], repeated.record["blocks"]) == ("steered", ["encoder.2"])


def test_it_gives_what_apply_gives_by_hand(guarded, server):
    guarded.set_policy((rule(),))
    graph = Graph()
    done = ran(guarded, graph, graph.saved(graph.text()))
    by_hand = Graph()
    name = put_vector(server, "encoder_by_hand", rule().vector)
    vector = by_hand.add("SafetySteering_LoadSafetyVector", vector=name)
    chosen = DEFAULTS | {"strength": 40.0, "norm": "none", "hook_points": "encoder.2", "clip": by_hand.clip}
    model = by_hand.model()
    applied = by_hand.graph.add("SafetySteering_ApplySafetySteering", chosen, model=model, safety_vector=vector)
    theirs = by_hand.saved(by_hand.text(clip=applied[1]))
    run = server.client.run(run_anew(by_hand.graph)).succeeded()
    assert torch.equal(done.latent, load_latent(server, run, theirs))


def test_inside_the_encoder_and_in_the_model_at_once(guarded):
    guarded.set_policy((rule(hook_points=("encoder.2", "conditioning"), strength=3.0),))
    graph = Graph()
    done = ran(guarded, graph, graph.saved(graph.text()))
    assert sorted(done.record["blocks"]) == ["conditioning", "encoder.2"]
    assert done.record["steered_steps"] == done.record["steps"] == 2


def test_prompts_that_no_steered_encoder_read_are_refused(guarded):
    guarded.set_policy((rule(),))
    brought = Graph()
    states = brought.add("SafetySteeringDev_TextEncode", text="a lake", kind="wan", width=4096, length=0)
    brought.saved(states)
    assert HOST in refusal_of(guarded, brought.graph)
    mixed = Graph()
    mixed.saved(mixed.text(), mixed.add("SafetySteeringDev_TextEncode", text="", kind="wan", width=4096, length=0))
    refused = refusal_of(guarded, mixed.graph)
    assert "steers inside the text encoder, and the prompts of this run come from" in refused
    assert "(SafetySteeringDev_TextEncode), where it could not." in refused


def of_a_pack(how, theirs=None):
    """A node that becomes an encode, whose prompt is steered, and a sampler."""
    graph = Graph()
    more = {} if theirs is None else {"theirs": theirs(graph)}
    links = {"model": graph.model(), "clip": graph.clip, "latent": graph.latent(), **more}
    return graph, graph.save(graph.add("Hostile_SampleText", how=how, **links))


@pytest.mark.parametrize("how", ["brings", "averages", "reads and brings"])
@pytest.mark.parametrize("theirs", [None, lambda graph: graph.text()], ids=["alone", "beside a steered prompt"])
def test_what_a_node_brings_into_the_graph_that_it_becomes_is_refused(guarded, how, theirs):
    guarded.set_policy((rule(),))
    graph, _ = of_a_pack(how, theirs)
    assert "(Hostile_SampleText), where it could not." in refusal_of(guarded, graph.graph)


def test_what_a_pack_adds_to_a_steered_prompt_is_refused(guarded):
    guarded.set_policy((rule(),))
    graph = Graph()
    graph.saved(graph.add("Hostile_ChangeText", theirs=graph.text(), clip=graph.clip, how="adds"))
    assert "(Hostile_ChangeText), where it could not." in refusal_of(guarded, graph.graph)


@pytest.mark.parametrize("how", ["hands on", "reads"])
def test_a_graph_that_a_node_becomes_may_have_steered_prompts_in_it(guarded, how):
    guarded.set_policy((rule(),))
    done = ran(guarded, *of_a_pack(how, lambda graph: graph.text("a small tree")))
    assert (done.record["verdict"], done.record["decision"]) == ("steered", "delivered")


def averaged(graph):
    other = graph.text("a small tree")
    settings = {"conditioning_to": graph.text(), "conditioning_to_strength": 0.5}
    return graph.add("ConditioningAverage", settings, conditioning_from=other)


def changed(how):
    return lambda graph: graph.add("Hostile_ChangeText", theirs=graph.text(), clip=graph.clip, how=how)


@pytest.mark.parametrize("prompt", [averaged, changed("hands on"), changed("weighs")], ids=["average", "same", "anew"])
def test_what_is_made_of_steered_prompts_is_steered(guarded, prompt):
    guarded.set_policy((rule(),))
    for seed in (1, 2):  # out of core's cache too
        graph = Graph()
        done = ran(guarded, graph, graph.saved(prompt(graph), seed=seed))
        assert (done.record["verdict"], done.record["blocks"]) == ("steered", ["encoder.2"])


def test_another_text_encoder_is_refused(guarded):
    other = random_vector({"encoder.1": ("t5xxl/encoder.1", 4096)}, family="wan", block_counts={})
    guarded.set_policy((rule(made=other, hook_points=("encoder.1",)),))
    graph = Graph()
    graph.saved(graph.text())
    assert "(CLIPTextEncode), where it could not." in refusal_of(guarded, graph.graph)


def test_a_graphs_own_steering_inside_the_encoder_is_replaced(guarded):
    guarded.set_policy((rule(),), permits={"unlisted_vectors": True})
    plain = Graph()
    alone = ran(guarded, plain, plain.saved(plain.text()))
    own = Graph()
    name = put_vector(guarded, "encoder_own", random_vector(SPACES, family="wan", block_counts={}, seed=5))
    vector = own.add("SafetySteering_LoadSafetyVector", vector=name)
    chosen = DEFAULTS | {"strength": 30.0, "hook_points": "encoder.2", "clip": own.clip}
    model = own.model()
    applied = own.graph.add("SafetySteering_ApplySafetySteering", chosen, model=model, safety_vector=vector)
    done = ran(guarded, own, own.saved(own.text(clip=applied[1])))
    assert torch.equal(done.latent, alone.latent)
    assert any("own steering inside the text encoder was replaced" in warning for warning in done.record["warnings"])


@pytest.mark.parametrize("hook_points", [("conditioning",)])
def test_rules_that_do_not_steer_inside_an_encoder_ask_for_nothing_there(guarded, hook_points):
    guarded.set_policy((rule(hook_points=hook_points, strength=2.0),))
    graph = Graph()
    states = graph.add("SafetySteeringDev_TextEncode", text="a lake", kind="wan", width=4096, length=0)
    done = ran(guarded, graph, graph.saved(states))
    assert done.record["verdict"] == "steered"
