"""An Apply Safety Steering whose model no sampler run steers: told at the prompt's end, refused by Steering Report."""

from __future__ import annotations

import json

import pytest
from safety_steering_pack.commands.api_graph import PromptGraph
from steered_graphs import run_anew, steer
from tiny.models import TINY_MODELS

REPORT = "SafetySteering_SteeringReport"
NOT_MADE = r"This latent was made without the steering of Apply Safety Steering \(node {}\): no run that made it"


class Graph:
    """A tiny Wan with Apply Safety Steering on its model, and links to what samplers need."""

    def __init__(self, server, seed: int = 1, **settings) -> None:
        self.server, self.graph, self.seed = server, PromptGraph(), seed
        self.plain = self.add("UNETLoader", unet_name=TINY_MODELS["wan21_t2v"].file_name, weight_dtype="default")
        self.steered = steer(server, "wan", **settings)(self.graph, self.plain)
        self.apply = self.steered[0]
        self.text = self.add("SafetySteeringDev_TextEncode", text="a calm lake", kind="wan", width=4096, length=0)
        self.latent = self.add("EmptyHunyuanLatentVideo", width=64, height=64, length=5, batch_size=1)

    def add(self, node, **inputs):
        return self.graph.add(node, **inputs)[0]

    def ksampler(self, model, latent=None, **changes):
        settings = {"seed": self.seed, "steps": 2, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple"}
        prompts = {"positive": self.text, "negative": self.text}
        chosen = settings | changes
        return self.add("KSampler", denoise=1.0, model=model, latent_image=latent or self.latent, **prompts, **chosen)

    def around(self, model):
        node = "SafetySteeringDev_AroundCore"
        return self.add(node, model=model, positive=self.text, latent_image=self.latent, seed=self.seed)

    def kept(self, samples):
        return self.add("SaveLatent", samples=samples, filename_prefix="lost")

    def report(self, samples, model=None):
        return self.add("PreviewAny", source=[self.add(REPORT, model=model or self.steered, samples=samples)[0], 1])

    def run(self, anew=True):
        return self.server.client.run(run_anew(self.graph) if anew else self.graph.prompt)


def told(run, apply):
    """What Apply shows of a run that it lost, in the history; the event says the same."""
    shown = " ".join(run.outputs.get(apply, {}).get("text", ()))
    events = [e["data"] for e in run.events if e["type"] == "safety_steering.trace" and e["data"]["status"] == "no run"]
    assert bool(events) == ("no steered run followed" in shown)
    assert all(event["node"] == apply for event in events)
    return shown if events else ""


def test_a_sampler_that_goes_around_core_is_told(server):
    graph = Graph(server)
    around = graph.around(graph.steered)
    graph.kept(around)
    for seed in (1, 2):  # the second time Apply comes out of the cache
        graph.graph.prompt[around[0]]["inputs"]["seed"] = seed
        assert "the model went to AroundCore (development)" in told(graph.run(anew=False).succeeded(), graph.apply)
    assert f"Apply Safety Steering (node {graph.apply}) did not act" in server.log()


def test_a_loop_of_its_own_that_asks_the_wrappers_is_steered_and_reported(server):
    graph = Graph(server)
    node = "SafetySteeringDev_AroundCore"
    inputs = {"positive": graph.text, "latent_image": graph.latent, "seed": 1, "with_wrappers": True}
    shown = graph.report(graph.add(node, model=graph.steered, **inputs))
    run = graph.run().succeeded()
    assert not told(run, graph.apply)
    assert [trace["status"] for trace in json.loads(run.text(shown[0]))] == ["acted", "acted"]


def test_a_safe_model_that_is_not_sampled_is_told(server):
    graph = Graph(server)
    file_name = graph.graph.prompt[graph.graph.prompt[graph.apply]["inputs"]["safety_vector"][0]]["inputs"]["vector"]
    model = graph.add("SafetySteering_SafeModel", model=graph.plain, vector=file_name, level=1.0, mix="")
    samples = graph.around(model)
    graph.kept(samples)
    assert "the model went to AroundCore (development)" in told(graph.run().succeeded(), model[0])
    graph.report(samples, model)
    with pytest.raises(RuntimeError, match=rf"without the steering of Safe Model \(node {model[0]}\)"):
        graph.run().succeeded()


def test_a_report_on_the_latent_of_such_a_sampler_is_refused(server):
    graph = Graph(server)
    graph.report(graph.around(graph.steered))
    with pytest.raises(RuntimeError, match=NOT_MADE.format(graph.apply)):
        graph.run().succeeded()


def test_a_report_belongs_to_the_latent_that_it_was_made_with(server):
    for other_too in (True, False):  # in one prompt, and after another prompt's run of the same steering
        graph = Graph(server)
        steered, around = graph.ksampler(graph.steered), graph.around(graph.steered)
        good = graph.report(steered)
        if other_too:
            bad = graph.report(around)
            run = graph.run()
            assert run.error.node_id == graph.graph.prompt[bad[0]]["inputs"]["source"][0]
            continue
        assert json.loads(graph.run().succeeded().text(good[0]))[0]["status"] == "acted"
        after = Graph(server)
        after.report(after.around(after.steered))
        with pytest.raises(RuntimeError, match=NOT_MADE.format(after.apply)):
            after.run(anew=False).succeeded()


def test_a_latent_is_reported_by_its_own_run(server):
    reports = {}
    for seed in (1, 2, 1, 2):
        graph = Graph(server, seed=seed)
        shown = graph.report(graph.ksampler(graph.steered))
        (trace,) = json.loads(graph.run(anew=False).succeeded().text(shown[0]))
        assert reports.setdefault(seed, trace["calls"]) == trace["calls"]
    assert reports[1] != reports[2]


MERGES = {
    "ModelMergeSimple": {"ratio": 0.5},
    "ModelMergeAdd": {},
    "ModelMergeSubtract": {"multiplier": 1.0},
    "ModelMergeBlocks": {"input": 1.0, "middle": 1.0, "out": 1.0},
}


@pytest.mark.parametrize("merge", MERGES)
def test_a_steered_second_model_of_a_merge_is_told_and_refused(server, merge):
    graph = Graph(server)
    merged = graph.add(merge, model1=graph.plain, model2=graph.steered, **MERGES[merge])
    samples = graph.ksampler(merged)
    graph.kept(samples)
    run = graph.run().succeeded()
    assert "the model went to KSampler" in told(run, graph.apply)
    for model in (merged, graph.steered):
        graph.report(samples, model)
        with pytest.raises(RuntimeError, match=NOT_MADE.format(graph.apply)):
            graph.run().succeeded()


def test_what_was_told_of_a_run_is_not_told_of_the_next(server):
    """The warning went into the words that core's cache keeps of Apply, and stood there when it did act."""
    graph = Graph(server)
    merged = graph.add("ModelMergeSimple", model1=graph.plain, model2=graph.steered, ratio=0.5)
    kept = graph.kept(graph.ksampler(merged))
    assert told(graph.run().succeeded(), graph.apply)
    graph.graph.prompt[merged[0]]["inputs"] |= {"model1": list(graph.steered), "model2": list(graph.plain)}
    run = graph.run().succeeded()
    assert graph.apply in run.cached_nodes
    assert not told(run, graph.apply)
    assert kept


def test_a_switch_that_takes_the_plain_model_is_no_loss(server):
    for on in (True, False):  # at the second time Apply's result is there, and the switch passes it by
        graph = Graph(server)
        model = graph.add("ComfySwitchNode", on_true=graph.steered, on_false=graph.plain, switch=on)
        graph.kept(graph.ksampler(model))
        assert not told(graph.run().succeeded(), graph.apply)
    around = Graph(server)
    model = around.add("ComfySwitchNode", on_true=around.steered, on_false=around.plain, switch=True)
    around.kept(around.around(model))
    assert "the model went to AroundCore (development)" in told(around.run().succeeded(), around.apply)


def test_a_steered_first_model_of_a_merge_is_steered(server):
    graph = Graph(server)
    merged = graph.add("ModelMergeSimple", model1=graph.steered, model2=graph.plain, ratio=0.5)
    report = graph.report(graph.ksampler(merged), merged)
    run = graph.run().succeeded()
    assert not told(run, graph.apply)
    assert json.loads(run.text(report[0]))[0]["status"] == "acted"


@pytest.mark.parametrize("steered_input", ["model", "guider"])
def test_apply_on_the_model_beside_a_guider_is_told(server, steered_input):
    graph = Graph(server)
    models = {"model": graph.plain, "guider": graph.plain, steered_input: graph.steered}
    guider = graph.add("BasicGuider", model=models["guider"], conditioning=graph.text)
    node = "SafetySteeringDev_ModelAndGuider"
    samples = graph.add(node, model=models["model"], guider=guider, latent_image=graph.latent, seed=1)
    graph.kept(samples)
    said = told(graph.run().succeeded(), graph.apply)
    assert ("the model went to ModelAndGuider (development)" in said) == (steered_input == "model")


def test_nothing_is_told_where_nothing_was_lost(server):
    quiet = [Graph(server), Graph(server, strength=0.0), Graph(server)]
    quiet[0].kept(quiet[0].ksampler(quiet[0].steered))
    quiet[1].kept(quiet[1].around(quiet[1].steered))  # strength 0 asks for nothing
    quiet[2].kept(quiet[2].ksampler(quiet[2].plain))  # its Apply is connected to nothing
    for graph in quiet:
        assert not told(graph.run().succeeded(), graph.apply)
    graph = quiet[0]
    graph.report(graph.ksampler(graph.steered))  # the run comes from the cache
    assert not told(graph.run(anew=False).succeeded(), graph.apply)


def test_every_run_of_a_tiled_upscale_is_counted(server):
    graph = Graph(server)
    tiles = graph.add(
        "SafetySteeringDev_Tiles", model=graph.steered, positive=graph.text, latent_image=graph.latent, tiles=36
    )
    report = graph.add(REPORT, model=graph.steered, samples=tiles)
    shown = graph.add("PreviewAny", source=[report[0], 1])
    run = graph.run().succeeded()
    said = run.outputs[report[0]]["text"][0]
    assert said.startswith("36 runs, all acted; 16 shown. Mean shift in gaps over all of them: ")
    assert len(json.loads(run.text(shown[0]))) == 16
