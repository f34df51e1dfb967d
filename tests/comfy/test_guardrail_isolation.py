"""Nothing that one job does reaches the next; no arithmetic and no nested value walks past the policy."""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.request

import pytest
import torch
from attack_graphs import OPERATORS, SHIFT, WAN, check_steered, graph_of, listed, own, pictures, sampled
from guarded import PolicyRule, by_hand, moved, once, refusal_of, sample_guarded
from safetensors.torch import load_file, save_file
from safety_steering_pack.commands.api_graph import PromptGraph
from safety_steering_pack.safety_steering.files import file_sha256
from steered_graphs import patch
from tiny.graphs import save_latent
from tiny.models import TINY_MODELS
from tiny.vectors import random_vector

# --- arithmetic


@pytest.mark.parametrize("strength", [5.0, 0.5])
def test_their_own_apply_is_replaced(guarded, server, strength):
    guarded.set_policy(allow={"vectors": listed(guarded)})
    done = sample_guarded(guarded, own(guarded, strength=strength))
    check_steered(done.record)
    assert torch.equal(done.latent, by_hand(server))
    assert any("was replaced by the policy's steering (own_apply)" in told for told in done.record["warnings"])


def test_their_own_apply_that_acts_in_no_run(guarded):
    """On the second model of a merge the steering is lost; the policy's is not."""

    def second_of_a_merge(graph, model):
        steered = own(guarded, strength=1.0)(graph, model)
        return graph.add("ModelMergeSimple", model1=model, model2=steered, ratio=0.5)[0]

    settings = {"permits": {"merge_and_save_models": True}, "allow": {"vectors": listed(guarded)}}
    guarded.set_policy(**settings)
    record = sample_guarded(guarded, second_of_a_merge).record
    check_steered(record)
    assert any("Apply Safety Steering (node" in warning and "did not act" in warning for warning in record["warnings"])
    guarded.set_policy(lost_apply="refuse", **settings)
    graph, _, _ = graph_of(second_of_a_merge)
    refused = refusal_of(guarded, graph)
    assert "did not act: the model went to KSampler" in refused
    assert "(lost_apply)" in refused


def test_extrapolating_between_two_latents_undoes_nothing(guarded, server):
    """2 x (policy) - (policy and theirs) would leave nothing of an `add` at small strength."""
    guarded.set_policy((PolicyRule(strength=0.5),), unsampled="flag", allow={"vectors": listed(guarded)})
    graph, first, _ = graph_of()
    steered = own(guarded, strength=1.0)(graph, ["1", 0])
    theirs = graph.add("KSampler", {**graph.prompt[first.samples[0]]["inputs"], "model": steered})
    apart = graph.add("LatentSubtract", samples1=first.samples, samples2=theirs[0])
    saved = save_latent(graph, apart[0], "apart")
    run = guarded.client.run(once(graph)).succeeded()
    record = guarded.record_of(run)
    assert moved(record) == [pytest.approx(2.0, rel=1e-3)]
    left = load_file(guarded.output_file(run.outputs[saved.id]["latents"][0]))["latent_tensor"]
    assert torch.count_nonzero(left) == 0  # the two runs are the same, so there is nothing to extrapolate
    assert server


# --- lists


def a_lora(guarded, name="target.safetensors", folder="loras"):
    generator = torch.Generator().manual_seed(1)
    layer = "diffusion_model.blocks.2.ffn.0"
    tensors = {
        f"{layer}.lora_down.weight": torch.randn(2, 32, generator=generator),
        f"{layer}.lora_up.weight": torch.randn(64, 2, generator=generator),
    }
    (guarded.models / folder).mkdir(exist_ok=True)
    save_file(tensors, guarded.models / folder / name)
    return file_sha256(guarded.models / folder / name)


def hooked(graph, hooks):
    """The family's graph with these hooks on its prompts."""
    first = WAN.graph(graph, steps=2)
    settings = graph.prompt[first.samples[0]]["inputs"]
    for name in ("positive", "negative"):
        settings[name] = graph.add("ConditioningSetProperties", cond_NEW=settings[name], hooks=hooks, strength=1.0)[0]
        graph.prompt[settings[name][0]]["inputs"]["set_cond_area"] = "default"
    return save_latent(graph, first.samples, "hooked")


def test_a_lora_in_a_nested_value(guarded):
    a_lora(guarded)
    guarded.set_policy(allow={"loras": []})
    for value in ({"on": True, "lora": "target.safetensors"}, {"__value__": [["target.safetensors"]]}):
        graph, first, _ = graph_of()
        graph.add("Hostile_LoraStack", model=["1", 0], stack=value)
        stacked = list(graph.prompt)[-1]
        graph.prompt[first.samples[0]]["inputs"]["model"] = [stacked, 0]
        assert "the LoRA 'target.safetensors' is not one of this host's (allow.loras)" in refusal_of(guarded, graph)


def test_a_lora_that_a_node_finds_by_itself(guarded):
    a_lora(guarded)
    a_lora(guarded, "disguised.safetensors", "checkpoints")
    for folder, name in (("loras", "target"), ("checkpoints", "disguised")):
        guarded.set_policy(allow={"loras": []})
        spelled = patch("Hostile_LoraByPath", folder=folder, name=name)
        graph, _, _ = graph_of(spelled)
        assert "(allow.loras)" in refusal_of(guarded, graph)
    guarded.set_policy(allow={"loras": [a_lora(guarded)]})
    check_steered(sample_guarded(guarded, patch("Hostile_LoraByPath", folder="loras", name="target")).record)


def test_a_lora_as_a_hook(guarded):
    a_lora(guarded)
    guarded.set_policy(allow={"loras": []})
    graph = PromptGraph()
    settings = {"strength_model": 1.0, "strength_clip": 0.0}
    hooks = graph.add("CreateHookLoraModelOnly", lora_name="target.safetensors", strength_model=1.0)[0]
    hooked(graph, hooks)
    assert "the LoRA 'target.safetensors' is not one of this host's" in refusal_of(guarded, graph)
    graph = PromptGraph()
    checkpoint = next((guarded.models / "checkpoints").glob("*.safetensors"), None)
    name = checkpoint.name if checkpoint else "none.safetensors"
    hooked(graph, graph.add("CreateHookModelAsLora", settings, ckpt_name=name)[0])
    assert "a whole model as a LoRA is not permitted here" in refusal_of(guarded, graph)


def a_hypernetwork(guarded):
    """A node that puts a hypernetwork, for attention over 4096 channels, on a model."""
    (guarded.models / "hypernetworks").mkdir(exist_ok=True)
    generator = torch.Generator().manual_seed(2)
    layers = {
        f"linear.0.{name}": torch.randn(size, generator=generator) for name, size in (("weight", (4, 4)), ("bias", 4))
    }
    network = {4: [layers, layers], "layer_structure": [1, 1], "activation_func": "linear"}
    torch.save(network, guarded.models / "hypernetworks" / "network.pt")
    return patch("HypernetworkLoader", hypernetwork_name="network.pt", strength=0.5)


def test_patches_are_in_the_fingerprint(guarded):
    plain = sample_guarded(guarded).record["models"]
    a_lora(guarded)
    named = {"lora_name": "target.safetensors"}
    patched = sample_guarded(guarded, patch("LoraLoaderModelOnly", **named, strength_model=0.3)).record["models"]
    graph = PromptGraph()
    hooked(graph, graph.add("CreateHookLoraModelOnly", lora_name="target.safetensors", strength_model=0.3)[0])
    as_hook = guarded.record_of(guarded.client.run(once(graph)).succeeded())["models"]
    bypass = [
        sample_guarded(guarded, patch("LoraLoaderBypassModelOnly", **named, strength_model=strength)).record["models"]
        for strength in (0.3, 0.5, 0.3)
    ]
    network = sample_guarded(guarded, a_hypernetwork(guarded)).record["models"]
    for models in (patched, as_hook, *bypass, network):
        assert models[0].startswith(f"{plain[0]}+")
    assert bypass[0] == bypass[2]
    assert len({models[0] for models in (patched, *bypass, network)}) == 4


# --- one job and the next


def test_what_a_job_changes_on_a_shared_model(guarded, server):
    for how in ("module", "forward", "class", "object patch"):
        graph, _, _ = graph_of(patch("Hostile_ChangeModel", how=how))
        run = guarded.client.run(once(graph))
        assert guarded.record_of(run)["decision"] in ("delivered", "refused", "failed")
        done = sample_guarded(guarded)
        check_steered(done.record)
        assert torch.equal(done.latent, by_hand(server)), how


def test_a_job_that_changes_a_model_and_fails_is_told_as_failed(guarded):
    def changed(graph, model):
        return patch("Hostile_ChangeModel", how="module")(
            graph, patch("SafetySteeringDev_Fail", fail_at_call=1, seconds_per_call=0.0)(graph, model)
        )

    run = sample_guarded(guarded, changed).run
    record = guarded.record_of(run)
    assert (run.status, record["decision"]) == ("error", "failed")


def test_a_replaced_function_of_core_is_put_back(guarded, server):
    graph, _, _ = graph_of(patch("Hostile_ReplaceCore", block=0))
    run = guarded.client.run(once(graph))
    record = guarded.record_of(run)
    assert record["decision"] == "refused"
    assert "The node pack 'hostile_nodes' has replaced" in record["reason"]
    assert not guarded.output_files(run)
    hostile = [graph_of(patch("Hostile_ReplaceCore", block=number), seed=number)[0] for number in (7, 8)]
    jobs = [guarded.client.submit(graph.prompt) for graph in hostile]
    for seed in range(4):  # nobody else is refused for it, not at the door either
        guarded.client.run(graph_of(seed=90 + seed)[0].prompt).succeeded()
    assert all(guarded.client.result(job).error is not None for job in jobs)
    done = sample_guarded(guarded)
    check_steered(done.record)
    assert torch.equal(done.latent, by_hand(server))


def test_after_a_refusal_the_cache_shows_no_dead_file(guarded):
    graph = PromptGraph()
    latent = sampled(graph)
    graph.add("SaveImage", images=pictures(graph, latent), filename_prefix="dead")
    graph.add("Hostile_SaveLater", images=graph.add("EmptyImage", width=64, height=64, batch_size=1, color=255)[0])
    prompt = once(graph)
    for _ in range(2):
        run = guarded.client.run(prompt)
        assert run.error is not None
        assert not [path for path in guarded.output_files(run) if not path.exists()]
    assert not list((guarded.base_directory / "output").rglob("dead*"))


def test_a_vector_of_another_size_is_the_hosts_matter(guarded):
    other = random_vector({"block.blocks.2.image": ("wan-4x48-16ch/block.blocks.2.image", 48)}, family="wan")
    guarded.set_policy((PolicyRule("wan", ("block.blocks.2.image",), match='family = "wan"', made=other),))
    graph, _, _ = graph_of()
    (guarded.private / OPERATORS).unlink()
    guarded.set_policy((PolicyRule("wan", ("block.blocks.2.image",), match='family = "wan"', made=other),))
    try:
        said = refusal_of(guarded, graph)
        assert "The rule 'rule 0' of the host's safety policy is for this kind of model" in said
        assert "Only the host can change that. Choose another of the host's models." in said
    finally:
        (guarded.private / OPERATORS).unlink()


# --- what clients can read of the host


def get(guarded, path):
    try:
        with urllib.request.urlopen(guarded.address + path, timeout=60) as response:
            return response.read().decode()
    except urllib.error.HTTPError as error:
        return error.read().decode()


def test_vectors_that_may_not_be_used_are_in_no_list(guarded):
    own(guarded)
    hidden = guarded.models / "safety_vectors" / "secret_of_the_host.safetensors"
    shutil.copy(guarded.private / OPERATORS, hidden)
    with open(hidden, "ab") as file:
        file.write(b" ")
    for path in ("/object_info", "/object_info/SafetySteering_LoadSafetyVector", "/models/safety_vectors"):
        assert "secret_of_the_host" not in get(guarded, path)
    assert OPERATORS in get(guarded, "/models/safety_vectors")
    assert "is not described on this server" in get(guarded, f"/safety_steering/vector?name={hidden.name}")
    hidden.unlink()


@pytest.mark.parametrize("name", ["list.m3u8", "list.M3U", "film.mp4", "sound.wav", "scene.txt.mp4"])
@pytest.mark.parametrize(
    "text", ["#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "ffconcat version 1.0\nfile /etc/passwd\n"]
)
def test_playlists_are_not_opened(guarded, name, text):
    (guarded.base_directory / "input" / name).write_text(text)
    graph, _, _ = graph_of()
    film = graph.add("LoadVideo", file=name)
    graph.add("PreviewImage", images=graph.add("GetVideoComponents", video=film[0])[0])
    said = refusal_of(guarded, graph)
    assert "This media file refers to other files or addresses" in said


def test_client_text_in_log_audit_and_answers(guarded):
    name = "x" * 3_000_000 + "\n\x1b[31mforged line"
    before, audit = len(guarded.log()), len(json.dumps(guarded.audit))
    for change in ({"class_type": name}, {"inputs": {"unet_name": name, "weight_dtype": "default"}}):
        graph, _, _ = graph_of()
        graph.prompt["1"].update(change)
        body = json.dumps({"prompt": graph.prompt}).encode()
        request = urllib.request.Request(f"{guarded.address}/prompt", body, {"Content-Type": "application/json"})
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=60)
        assert len(refused.value.read()) < 5_000
    log = guarded.log()[before:]
    assert len(log) < 20_000
    assert "\x1b[31mforged" not in guarded.log_file.read_text(errors="replace")
    assert len(json.dumps(guarded.audit)) - audit < 5_000


def test_a_failed_job_names_no_folder(guarded):
    graph, _, _ = graph_of(patch("SafetySteeringDev_Fail", fail_at_call=1, seconds_per_call=0.0))
    run = guarded.client.run(once(graph))
    assert run.error.traceback == ""
    assert str(guarded.base_directory) not in json.dumps(run.history)
    assert TINY_MODELS
    assert SHIFT
