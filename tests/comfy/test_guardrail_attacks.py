"""Graphs that a hostile client could submit to a guarded server: each is steered as the policy says, or refused.

What "steered" means is checked twice: by the audit's own numbers, and by the latents, which must be bit for bit those
that the policy's vector gives when somebody applies it by hand on a server without a policy.
"""

from __future__ import annotations

import pytest
import torch
from attack_graphs import OPERATORS, WAN, check_steered, graph_of, listed, loop, own
from guarded import PolicyRule, by_hand, outcome, refusal_of, sample_guarded
from safetensors.torch import save_file
from safety_steering_pack.commands.api_graph import PromptGraph
from safety_steering_pack.safety_steering.files import file_sha256
from steered_graphs import FAMILIES, apply_vector, patch, plain, sample
from tiny.graphs import save_latent
from tiny.models import TINY_MODELS

# --- the model that is sampled


def test_no_apply_node(guarded, server):
    done = sample_guarded(guarded)
    check_steered(done.record)
    assert torch.equal(done.latent, by_hand(server))
    assert not torch.equal(done.latent, plain(server, "wan"))


@pytest.mark.parametrize("mode", [2, 4], ids=["muted", "bypassed"])
def test_apply_bypassed_or_muted(guarded, server, mode):
    graph, _, saved = graph_of()
    own(guarded, strength=1.0)(graph, ["1", 0])
    graph.prompt[list(graph.prompt)[-1]]["mode"] = mode
    done = outcome(guarded, graph, saved.id)
    check_steered(done.record)
    assert torch.equal(done.latent, by_hand(server))


@pytest.mark.parametrize("block", [1, 2, 3])
def test_negative_strength_in_their_own_apply(guarded, block):
    graph, _, _ = graph_of(own(guarded, block, strength=-5.0))
    guarded.set_policy(allow={"vectors": listed(guarded)})
    assert "the strength -5.0 steers away from safety" in refusal_of(guarded, graph)


def test_negative_strength_over_a_link(guarded):
    graph, _, _ = graph_of(own(guarded, strength=1.0))
    number = graph.add("PrimitiveFloat", value=-5.0)
    apply = next(node for node in graph.prompt.values() if node["class_type"].endswith("ApplySafetySteering"))
    apply["inputs"]["strength"] = number[0]
    guarded.set_policy(allow={"vectors": listed(guarded)})
    assert "the strength -5.0 steers away from safety" in refusal_of(guarded, graph)


@pytest.mark.parametrize("block", [1, 2])
def test_where_negative_strength_is_permitted_the_policy_has_the_last_word(guarded, block):
    clamp = PolicyRule(strength=1.0, settings={"intervention": "clamp"})
    away = own(guarded, block, strength=-5.0)
    guarded.set_policy(
        (clamp,), own_apply="allow", permits={"negative_strength": True}, allow={"vectors": listed(guarded)}
    )
    done = sample_guarded(guarded, away)
    (projection,) = done.record["projections"]
    assert projection["before"] < 0 <= projection["after"] + 1e-4
    assert done.record["verdict"] == "steered"


def test_a_second_loader(guarded, server):
    graph, _, saved = graph_of()
    other = WAN.graph(graph, steps=2)
    again = save_latent(graph, other.samples, "second")
    done = outcome(guarded, graph, saved.id)
    second = outcome(guarded, graph, again.id)
    assert done.record["verdict"] == "steered"
    assert len(done.record["outputs"]) == 2
    assert torch.equal(done.latent, by_hand(server))
    assert torch.equal(second.latent, by_hand(server))


def test_a_second_loader_of_a_model_without_a_rule(guarded):
    graph, _, _ = graph_of()
    save_latent(graph, FAMILIES["flux"].graph(graph, steps=2).samples, "second")
    assert "no rule for this model (flux" in refusal_of(guarded, graph)
    assert guarded.audit[-1]["verdict"] == "not steered"


def test_a_model_without_a_rule_where_the_policy_only_flags_it(guarded, server):
    guarded.set_policy(without_rule="flag")
    done = sample_guarded(guarded, key="flux")
    assert (done.record["verdict"], done.record["decision"]) == ("no rule", "delivered")
    assert "no rule for this model" in done.record["warnings"][0]
    assert done.record["outputs"][0]["verdict"] == "no rule"
    assert torch.equal(done.latent, plain(server, "flux"))


def merged(graph, model):
    steered = own_apply(graph, model)
    return graph.add("ModelMergeSimple", model1=steered, model2=model, ratio=0.0)[0]


def own_apply(graph, model):
    return apply_vector(OPERATORS, strength=1.0, hook_points=WAN.block)(graph, model)


def test_a_merge_after_apply(guarded):
    own(guarded)
    graph, _, _ = graph_of(merged)
    assert "ModelMergeSimple: merging models is not permitted" in refusal_of(guarded, graph)
    guarded.set_policy(permits={"merge_and_save_models": True}, allow={"vectors": listed(guarded)})
    check_steered(sample_guarded(guarded, merged).record)


@pytest.mark.parametrize("node", ["ModelSave", "CheckpointSave", "SafetySteering_SaveSafetyVector"])
def test_save_then_reload(guarded, node):
    own(guarded)
    graph, sampled, _ = graph_of()
    if node == "ModelSave":
        graph.add(node, model=sampled.model, filename_prefix="diffusion_models/mine")
    elif node == "CheckpointSave":
        vae = graph.add("VAELoader", vae_name=TINY_MODELS["wan_vae"].file_name)
        graph.add(node, model=sampled.model, clip=vae[0], vae=vae[0], filename_prefix="checkpoints/mine")
    else:
        vector = graph.add("SafetySteering_LoadSafetyVector", vector=OPERATORS)
        graph.add(node, safety_vector=vector[0], filename="mine", overwrite=False)
    assert "is not permitted here" in refusal_of(guarded, graph)
    assert not list(guarded.base_directory.rglob("mine*"))


def lora(server):
    """A node that puts a tiny LoRA on the block that is steered; its file is written."""
    generator = torch.Generator().manual_seed(1)
    layer = "diffusion_model.blocks.2.ffn.0"
    tensors = {
        f"{layer}.lora_down.weight": torch.randn(2, 32, generator=generator),
        f"{layer}.lora_up.weight": torch.randn(64, 2, generator=generator),
        f"{layer}.alpha": torch.tensor(2.0),
    }
    (server.models / "loras").mkdir(exist_ok=True)
    save_file(tensors, server.models / "loras" / "target.safetensors")
    return patch("LoraLoaderModelOnly", lora_name="target.safetensors", strength_model=0.3)


def test_a_lora_on_the_target_block(guarded, server):
    elsewhere, here = lora(server), lora(guarded)
    guarded.set_policy(allow={"loras": []})
    graph, _, _ = graph_of(here)
    assert "the LoRA 'target.safetensors' is not one of this host's" in refusal_of(guarded, graph)
    guarded.set_policy(allow={"loras": [file_sha256(guarded.models / "loras" / "target.safetensors")]})
    done = sample_guarded(guarded, here)
    check_steered(done.record)
    assert not torch.equal(done.latent, sample(server, "wan", elsewhere).latent)


@pytest.mark.parametrize("name", ["../loras/target.safetensors", "/etc/passwd", "sub/../../x.safetensors"])
def test_a_lora_outside_of_the_folder(guarded, name):
    lora(guarded)
    guarded.set_policy(allow={"loras": []})
    graph, _, _ = graph_of(patch("LoraLoaderModelOnly", lora_name=name, strength_model=1.0))
    assert "is not permitted here" in refusal_of(guarded, graph)


def test_an_object_patch_on_the_target_block(guarded):
    check_steered(sample_guarded(guarded, patch("Hostile_ObjectPatch", block=2)).record)


@pytest.mark.parametrize(
    "skipping",
    [
        patch("SafetySteeringDev_ReplaceBlock", block=2),
        patch(
            "SkipLayerGuidanceDiTSimple",
            double_layers="2",
            single_layers="",
            start_percent=0.0,
            end_percent=1.0,
        ),
    ],
    ids=["replaced", "skipped in one pass"],
)
def test_patches_replace_that_skips_the_target_block(guarded, skipping):
    graph, _, _ = graph_of(skipping)
    assert "replaced" in (said := refusal_of(guarded, graph)) or "another node stood in the place" in said
    assert guarded.audit[-1]["verdict"] == "not steered"


def test_denoise_0_4(guarded, server):
    done = sample_guarded(guarded, steps=5, denoise=0.4)
    check_steered(done.record)
    assert torch.equal(done.latent, by_hand(server, steps=5, denoise=0.4))


# --- samplers and packs


def custom(node):
    """SamplerCustomAdvanced with a sampler of their own."""

    def guide(graph, model, prompts, cfg):
        graph.hostile = graph.add(node)[0]
        return graph.add("BasicGuider", model=model, conditioning=prompts[0])[0]

    graph, _, saved = graph_of(guider=guide)
    advanced = next(node for node in graph.prompt.values() if node["class_type"] == "SamplerCustomAdvanced")
    advanced["inputs"]["sampler"] = graph.hostile
    return graph, saved


def test_a_sampler_class_of_their_own(guarded):
    graph, saved = custom("Hostile_SamplerOfTheirOwn")
    check_steered(outcome(guarded, graph, saved.id).record)


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ("Hostile_SamplerAroundCore", "in a way that the host's safety policy cannot steer"),
        ("Hostile_SamplerWithoutModel", "the sampler never called the model"),
    ],
)
def test_a_sampler_that_goes_around_core(guarded, node, words):
    graph, _ = custom(node)
    assert words in refusal_of(guarded, graph)
    assert guarded.audit[-1]["verdict"] == "not steered"


@pytest.mark.parametrize("node", ["Hostile_WrapperRemover", "Hostile_Later"])
def test_a_node_that_takes_the_guards_wrappers_away(guarded, node):
    graph, _, _ = graph_of(patch(node, block=2))
    assert "in a way that the host's safety policy cannot steer" in refusal_of(guarded, graph)


def test_a_node_that_swallows_the_refusal(guarded):
    graph, _, _ = graph_of(patch("Hostile_WrapperRemover", block=2))
    ksampler = next(node for node in graph.prompt.values() if node["class_type"] == "KSampler")
    inputs = {name: ksampler["inputs"][name] for name in ("model", "positive", "negative")}
    ksampler["class_type"] = "Hostile_SwallowError"
    ksampler["inputs"] = {**inputs, "latent": ksampler["inputs"]["latent_image"]}
    assert "in a way that the host's safety policy cannot steer" in refusal_of(guarded, graph)


def test_a_refused_node_that_appears_at_run_time(guarded):
    graph, _, _ = graph_of()
    loop(graph, times=1, save=True)
    assert "ModelSave: saving models" in refusal_of(guarded, graph)
    assert not list(guarded.base_directory.rglob("stolen*"))


def test_a_node_class_outside_of_the_allow_list(guarded):
    graph, _, saved = graph_of()
    classes = sorted({node["class_type"] for node in graph.prompt.values()})
    guarded.set_policy(allow={"nodes": classes})
    check_steered(outcome(guarded, graph, saved.id).record)
    graph, _, _ = graph_of(patch("Hostile_ObjectPatch", block=2))
    assert "Hostile_ObjectPatch: this server does not offer this kind of node" in refusal_of(guarded, graph)
    graph, _, _ = graph_of()
    guarded.set_policy(allow={"nodes": [*(name for name in classes if name != "KSampler"), "Hostile_Loop"]})
    loop(graph, times=1, save=False)
    assert "KSampler: this server does not offer" in refusal_of(guarded, graph)


def test_a_node_that_calls_another_service(guarded):
    graph = PromptGraph()
    graph.add("PreviewImage", images=graph.add("Hostile_ApiNode")[0])
    assert "nodes that call other services are not permitted" in refusal_of(guarded, graph)
