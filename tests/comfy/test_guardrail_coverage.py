"""Every way in which stock nodes sample, on a guarded server and with no node of this pack in the graph: each model
call is steered by the policy.
"""

from __future__ import annotations

import pytest
import torch
from guarded import PolicyRule, by_hand, moved, once, outcome, sample_guarded
from safetensors.torch import load_file
from safety_steering_pack.commands.api_graph import PromptGraph
from steered_graphs import FAMILIES, patch
from tiny.graphs import cfg_guider, save_latent
from tiny.models import write_tiny_model
from tiny.vectors import random_vector

WAN = FAMILIES["wan"]
GAP = 4.0


def holds(strength):
    """A mean shift of this many gaps."""
    return pytest.approx(strength * GAP, rel=1e-3)


def check_steered(record, *shifts, verdict="steered"):
    """Every step was steered, and each of the policy's hook points moved as far as its rule says."""
    assert (record["verdict"], record["decision"]) == (verdict, "delivered")
    assert record["steered_steps"] == record["steps"] > 0
    assert sorted(moved(record)) == [holds(shift) for shift in sorted(shifts or (3.0,))]


@pytest.mark.parametrize("key", ["wan", "wan_i2v", "wan22_i2v", "ltxv", "ltxv_guide", "flux"])
def test_families_and_tasks(guarded, server, key):
    rule = PolicyRule(key)
    guarded.set_policy((rule,))
    done = sample_guarded(guarded, key=key)
    with_a_picture = key in ("wan_i2v", "wan22_i2v", "ltxv_guide")
    check_steered(done.record, verdict="steered from client content" if with_a_picture else "steered")
    assert torch.equal(done.latent, by_hand(server, rule))


def test_conditioning_and_blocks_at_once(guarded):
    guarded.set_policy((PolicyRule(hook_points=("conditioning", "block.blocks.1.image", "block.blocks.3.image")),))
    check_steered(sample_guarded(guarded).record, 3.0, 3.0, 3.0)


def test_several_rules_for_one_model(guarded):
    here, there = PolicyRule(strength=1.0), PolicyRule(hook_points=("conditioning",), strength=2.0)
    guarded.set_policy((here, there))
    check_steered(sample_guarded(guarded).record, 1.0, 2.0)


def test_rules_by_space_and_by_fingerprint(guarded):
    guarded.set_policy((PolicyRule(match='space = "wan-4x32-16ch/block.blocks.2.image"'),))
    record = sample_guarded(guarded).record
    check_steered(record)
    guarded.set_policy((PolicyRule(match=f'fingerprint = "{record["models"][0]}"', strength=2.0),))
    check_steered(sample_guarded(guarded).record, 2.0)


def ksampler_of(graph):
    return next(node for node in graph.prompt.values() if node["class_type"] == "KSampler")


def replaced(class_type, **changes):
    """The family's graph with another node in KSampler's place."""
    graph = PromptGraph()
    sampled = WAN.graph(graph, steps=2)
    saved = save_latent(graph, sampled.samples, "guarded")
    node = ksampler_of(graph)
    inputs = {name: value for name, value in node["inputs"].items() if name not in ("seed", "denoise")}
    node.update(class_type=class_type, inputs={**inputs, **changes})
    return graph, saved.id


ADVANCED = {"add_noise": "enable", "noise_seed": 1, "start_at_step": 0, "end_at_step": 100}


def test_ksampler_advanced(guarded, server):
    graph, saved = replaced("KSamplerAdvanced", **ADVANCED, return_with_leftover_noise="disable")
    done = outcome(guarded, graph, saved)
    check_steered(done.record)
    assert torch.equal(done.latent, by_hand(server))


def test_sampler_custom(guarded, server):
    graph, saved = replaced("SamplerCustom", add_noise=True, noise_seed=1)
    node = next(node for node in graph.prompt.values() if node["class_type"] == "SamplerCustom")
    schedule = {"scheduler": "simple", "steps": 2, "denoise": 1.0}
    node["inputs"] |= {
        "sampler": graph.add("KSamplerSelect", sampler_name="euler")[0],
        "sigmas": graph.add("BasicScheduler", schedule, model=node["inputs"]["model"])[0],
    }
    done = outcome(guarded, graph, saved)
    check_steered(done.record)
    assert torch.equal(done.latent, by_hand(server))


def basic(graph, model, prompts, cfg):
    return graph.add("BasicGuider", model=model, conditioning=prompts[0])[0]


def dual_cfg(style):
    def guider(graph, model, prompts, cfg):
        conds = {"cond1": prompts[0], "cond2": prompts[1], "negative": prompts[1]}
        return graph.add("DualCFGGuider", conds, model=model, cfg_conds=cfg, cfg_cond2_negative=2.0, style=style)[0]

    return guider


def dual_model(graph, model, prompts, cfg):
    other = graph.add("UNETLoader", unet_name="other_wan.safetensors", weight_dtype="default")
    prompts = {"positive": prompts[0], "negative": prompts[1]}
    return graph.add("DualModelGuider", prompts, model=model, model_negative=other[0], cfg=cfg)[0]


def perp_neg(graph, model, prompts, cfg):
    conds = {"positive": prompts[0], "negative": prompts[1], "empty_conditioning": prompts[1]}
    return graph.add("PerpNegGuider", conds, model=model, cfg=cfg, neg_scale=1.0)[0]


@pytest.fixture
def other_wan(guarded, comfy_in_process):
    """A second Wan of the same shape and with other weights: as Wan 2.2's two experts are."""
    write_tiny_model("wan21_t2v", guarded.models / "diffusion_models" / "other_wan.safetensors", seed=5)
    return "other_wan.safetensors"


@pytest.mark.parametrize(
    "guider",
    [basic, cfg_guider, dual_cfg("regular"), dual_cfg("nested"), dual_model, perp_neg],
    ids=["basic", "cfg", "dual cfg", "dual cfg nested", "dual model", "perp neg"],
)
def test_sampler_custom_advanced_with_every_guider(guarded, other_wan, guider):
    check_steered(sample_guarded(guarded, guider=guider, cfg=3.0).record)


def test_a_guider_that_mixes_models_of_different_rules_is_refused(guarded):
    def mixed(graph, model, prompts, cfg):
        guider = dual_model(graph, model, prompts, cfg)
        graph.prompt[guider[0]]["inputs"]["model_negative"] = graph.add(
            "UNETLoader", unet_name="flux1-dev.safetensors", weight_dtype="default"
        )[0]
        return guider

    run = sample_guarded(guarded, guider=mixed, cfg=3.0).run
    assert run.error is not None
    assert guarded.record_of(run)["decision"] in ("refused", "failed")


SLG = {"double_layers": "1", "single_layers": "", "start_percent": 0.0, "end_percent": 1.0}


@pytest.mark.parametrize(
    "extra_pass",
    [
        patch("SkipLayerGuidanceDiT", SLG, scale=3.0, rescaling_scale=0.0),
        patch("SkipLayerGuidanceDiTSimple", SLG),
        patch("CFGZeroStar"),
        patch("ModelSamplingSD3", shift=12.0),
    ],
    ids=["slg", "slg simple", "cfg zero star", "shift"],
)
def test_extra_passes_and_patches(guarded, extra_pass):
    check_steered(sample_guarded(guarded, extra_pass, cfg=3.0).record)


def test_self_attention_guidance(guarded):
    """It calls the model again, with what it has blurred, after each step."""
    vector = random_vector({"conditioning": ("clip-l.last", 768)}, family="sd1")
    guarded.set_policy((PolicyRule("sd1", ("conditioning",), match='family = "sd1"', made=vector),))
    graph = PromptGraph()
    model = graph.add("SelfAttentionGuidance", model=graph.add("Hostile_SmallUNet")[0], scale=0.5, blur_sigma=2.0)
    prompts = [graph.add("SafetySteeringDev_TextEncode", text=t, kind="flux", width=768, length=16) for t in "ab"]
    latent = graph.add("EmptyLatentImage", width=128, height=128, batch_size=1)
    settings = {"seed": 1, "steps": 2, "cfg": 3.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    links = {"positive": prompts[0][0], "negative": prompts[1][0], "latent_image": latent[0]}
    sampled = graph.add("KSampler", settings | links, model=model[0])
    done = outcome(guarded, graph, save_latent(graph, sampled[0], "guarded").id)
    check_steered(done.record)


def test_a_second_pass(guarded):
    graph = PromptGraph()
    sampled = WAN.graph(graph, steps=2)
    first = ksampler_of(graph)["inputs"]
    larger = graph.add("LatentUpscaleBy", samples=sampled.samples, upscale_method="nearest-exact", scale_by=2.0)
    again = graph.add("KSampler", first | {"steps": 5, "denoise": 0.4}, latent_image=larger[0])
    saved = save_latent(graph, again[0], "guarded")
    record = outcome(guarded, graph, saved.id).record
    check_steered(record)
    assert record["steps"] == 7


def test_wan_2_2_and_its_two_experts(guarded, other_wan):
    """High noise in one model, low noise in another; a rule for each by its weights."""
    graph = PromptGraph()
    WAN.graph(graph, steps=4)
    shared = {name: value for name, value in ksampler_of(graph)["inputs"].items() if name not in ("seed", "denoise")}
    expert = graph.add("UNETLoader", unet_name=other_wan, weight_dtype="default")
    high, low = {**ADVANCED, "end_at_step": 2}, {**ADVANCED, "add_noise": "disable", "start_at_step": 2}
    first = graph.add("KSamplerAdvanced", {**shared, **high, "return_with_leftover_noise": "enable"})
    second = graph.add(
        "KSamplerAdvanced",
        {**shared, **low, "return_with_leftover_noise": "disable", "model": expert[0], "latent_image": first[0]},
    )
    saved = save_latent(graph, second[0], "guarded")
    done = outcome(guarded, graph, saved.id)
    check_steered(done.record)
    assert done.record["steps"] == 4
    models = done.record["models"]
    assert len(models) == 2
    guarded.set_policy(
        tuple(
            PolicyRule(match=f'fingerprint = "{model}"', hook_points=(f"block.blocks.{block}.image",), strength=block)
            for model, block in zip(models, (1, 3), strict=True)
        )
    )
    check_steered(outcome(guarded, graph, saved.id).record, 1.0, 3.0)


def test_context_windows(guarded):
    windows = {
        "context_length": 17,
        "context_overlap": 8,
        "context_schedule": "standard_static",
        "context_stride": 1,
        "closed_loop": False,
        "fuse_method": "pyramid",
        "freenoise": False,
        "retain_first_frame": False,
        "split_conds_to_windows": False,
    }
    check_steered(sample_guarded(guarded, patch("WanContextWindowsManual", windows), length=33, cfg=3.0).record)


def test_steps_that_a_cache_answers(guarded):
    caching = {"reuse_threshold": 3.0, "start_percent": 0.2, "end_percent": 1.0, "verbose": False}
    record = sample_guarded(guarded, patch("EasyCache", caching), steps=6).record
    assert record["verdict"] == "steered"
    assert 0 < record["steered_steps"] < record["steps"] == 6


def test_loops_that_unfold_at_run_time(guarded):
    graph, saved = replaced("KSampler")
    inputs = ksampler_of(graph)["inputs"]
    kept = {name: inputs[name] for name in ("model", "positive", "negative")}
    ksampler_of(graph).update(
        class_type="Hostile_Loop", inputs={**kept, "latent": inputs["latent_image"], "times": 3, "save": False}
    )
    record = outcome(guarded, graph, saved).record
    check_steered(record)
    assert record["steps"] == 6


def test_subgraphs(guarded):
    """The frontend flattens a subgraph into nodes whose ids are `<outer>:<inner>`."""
    graph, saved = PromptGraph(), ""
    saved = save_latent(graph, WAN.graph(graph, steps=2).samples, "guarded").id
    flat = {f"7:{node_id}": node for node_id, node in once(graph).items()}
    for node in flat.values():
        for name, value in node["inputs"].items():
            if isinstance(value, list):
                node["inputs"][name] = [f"7:{value[0]}", value[1]]
    run = guarded.client.run(flat).succeeded()
    record = guarded.record_of(run)
    check_steered(record)
    assert record["outputs"][0]["verdict"] == "steered"
    assert load_file(guarded.output_file(run.outputs[f"7:{saved}"]["latents"][0]))["latent_tensor"].isfinite().all()


def test_partial_execution(guarded):
    graph = PromptGraph()
    wanted = save_latent(graph, WAN.graph(graph, steps=2).samples, "wanted")
    save_latent(graph, WAN.graph(graph, steps=3).samples, "unwanted")
    body = {"prompt": once(graph), "partial_execution_targets": [wanted.id]}
    prompt_id = guarded.client.request("/prompt", body)["prompt_id"]
    guarded.client._node_errors[prompt_id] = {}
    run = guarded.client.result(prompt_id).succeeded()
    record = guarded.record_of(run)
    check_steered(record)
    assert record["steps"] == 2
    assert [output["file"].split("_")[0] for output in record["outputs"]] == ["wanted"]


@pytest.mark.parametrize("sampler_name", ["euler", "heun", "dpmpp_2m", "res_multistep", "uni_pc", "euler_ancestral"])
def test_samplers(guarded, sampler_name):
    check_steered(sample_guarded(guarded, sampler_name=sampler_name, steps=3).record)


def test_a_run_without_a_step_is_marked_as_unsampled(guarded):
    guarded.set_policy(unsampled="flag")
    done = sample_guarded(guarded, denoise=0.0)
    assert (done.record["verdict"], done.record["steps"]) == ("not sampled here", 0)


def test_an_interrupted_job(guarded):
    graph = PromptGraph()
    slow = patch("SafetySteeringDev_Fail", fail_at_call=0, seconds_per_call=0.2)
    save_latent(graph, WAN.graph(graph, slow, steps=40).samples, "interrupted")
    prompt_id = guarded.client.submit(once(graph))
    guarded.client.wait_for(prompt_id, "progress")
    guarded.client.interrupt()
    run = guarded.client.result(prompt_id)
    assert run.status == "interrupted"
    record = guarded.record_of(run)
    assert (record["decision"], record["outputs"]) == ("interrupted", [])
    check_steered(sample_guarded(guarded).record)


def test_a_job_that_fails_by_itself(guarded):
    run = sample_guarded(guarded, patch("SafetySteeringDev_Fail", fail_at_call=2, seconds_per_call=0.0)).run
    record = guarded.record_of(run)
    assert (record["decision"], record["reason"]) == ("failed", "KSampler: RuntimeError")
