"""Graphs that a hostile client could submit to a guarded server: each is steered as the policy says, or refused.

What "steered" means is checked twice: by the audit's own numbers, and by the latents, which must be bit for bit those
that the policy's vector gives when somebody applies it by hand on a server without a policy.
"""

from __future__ import annotations

import json
import shutil
import threading
import urllib.error
import urllib.request

import pytest
import torch
from guarded import GuardedServer, PolicyRule, by_hand, moved, outcome, policy_text, refusal_of, sample_guarded
from safetensors.torch import save_file
from safety_steering_pack.commands.api_graph import PromptGraph
from safety_steering_pack.commands.comfy_client import PromptRejected
from safety_steering_pack.safety_steering.files import file_sha256
from safety_steering_pack.safety_steering.vectors.file import save_vector
from steered_graphs import FAMILIES, apply_vector, patch, plain, put_vector, sample
from tiny.graphs import save_latent
from tiny.models import TINY_MODELS
from vector_algebra import select

WAN = FAMILIES["wan"]
SHIFT = 3.0 * 4.0  # the rule's strength in gaps of 4
HOLDING = pytest.approx(SHIFT, rel=1e-3)


OPERATORS = PolicyRule().file_name


def own(guarded, block=2, **settings):
    """The client's own Apply, with the operator's vector file (block 2) or another that the operator made."""
    rule = PolicyRule(hook_points=(f"block.blocks.{block}.image",))
    policy_text(guarded.private, (rule,))
    shutil.copy(guarded.private / rule.file_name, guarded.models / "safety_vectors" / rule.file_name)
    return apply_vector(rule.file_name, norm="none", hook_points=rule.points[0], **settings)


def listed(guarded):
    """The sha256 of the vector files that `own` uses."""
    return [file_sha256(path) for path in sorted((guarded.models / "safety_vectors").glob("wan_block*"))]


def graph_of(steering=None, key="wan", **options):
    graph = PromptGraph()
    sampled = FAMILIES[key].graph(graph, steering, **{"steps": 2, **options})
    saved = save_latent(graph, sampled.samples, "attack")
    return graph, sampled, saved


def check_steered(record):
    assert (record["verdict"], record["decision"]) == ("steered", "delivered")
    assert record["steered_steps"] == record["steps"] > 0
    assert moved(record) == [HOLDING]
    assert len(record["outputs"]) == 1


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
    guarded.set_policy((clamp,), permits={"negative_strength": True}, allow={"vectors": listed(guarded)})
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
    assert "the LoRA 'target.safetensors' is not one of those" in refusal_of(guarded, graph)
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


def loop(graph, **settings):
    ksampler = next(node for node in graph.prompt.values() if node["class_type"] == "KSampler")
    inputs = {name: ksampler["inputs"][name] for name in ("model", "positive", "negative")}
    ksampler["class_type"] = "Hostile_Loop"
    ksampler["inputs"] = {**inputs, "latent": ksampler["inputs"]["latent_image"], **settings}


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


# --- vectors, files and routes


def test_a_vector_of_theirs(guarded):
    theirs = WAN.vector(seed=7)
    put_vector(guarded, "theirs", theirs)
    graph, _, _ = graph_of(apply_vector("theirs.safetensors", strength=1.0))
    assert "theirs.safetensors is not one of the safety vectors of this host" in refusal_of(guarded, graph)


def test_a_vector_of_theirs_under_the_operators_name(guarded, server):
    path = guarded.private / OPERATORS
    mine = path.read_bytes()
    try:
        save_vector(select(WAN.vector(seed=7), hook_points=(WAN.block,)), path, overwrite=True)
        # the policy in force goes on with what it has checked and loaded
        done = sample_guarded(guarded)
        assert torch.equal(done.latent, by_hand(server))
        # the next one finds that the file is another
        text = (guarded.private / "policy.toml").read_text(encoding="utf-8")
        guarded.write_policy(f"# again\n{text}")
        assert "has the sha256" in refusal_of_any(guarded)
        assert "has the sha256" in guarded.status()["problem"]
    finally:
        path.write_bytes(mine)
    assert guarded.status()["serving"]


def refusal_of_any(guarded):
    """What the server says while it serves nobody; its audit is closed to it then."""
    graph, _, _ = graph_of()
    with pytest.raises(PromptRejected) as refused:
        guarded.client.run(graph.prompt)
    return refused.value.error["message"]


@pytest.mark.parametrize("text", ["version = 1\n[[rules", "version = 1\nstrenght = 3\n", "", "\x00\x01"])
def test_an_invalid_policy_serves_nobody(guarded, text):
    guarded.write_policy(text)
    assert "The policy policy.toml" in refusal_of_any(guarded)
    assert not guarded.status()["serving"]
    guarded.set_policy()
    check_steered(sample_guarded(guarded).record)


@pytest.mark.parametrize(
    "change",
    [
        {"SaveLatent": {"filename_prefix": "../../escaped"}},
        {"SaveLatent": {"filename_prefix": "/escaped"}},
        {"SaveLatent": {"filename_prefix": "a\\..\\..\\escaped"}},
        {"UNETLoader": {"unet_name": "../diffusion_models/wan2.1_t2v_1.3B_fp16.safetensors"}},
    ],
)
def test_path_traversal(guarded, change):
    graph, _, _ = graph_of()
    ((name, inputs),) = change.items()
    next(node for node in graph.prompt.values() if node["class_type"] == name)["inputs"].update(inputs)
    assert "leads out of the server's folders" in refusal_of(guarded, graph)


def answer(guarded: GuardedServer, path, data=None, method=None, headers=None):
    """The status code and body of a request."""
    request = urllib.request.Request(guarded.address + path, data, headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/userdata/policy.toml", {}),
        ("/userdata/..%2F__safety_steering%2Fpolicy.toml", {}),
        ("/api/userdata/..%2F..%2F__safety_steering%2Fpolicy.toml", {}),
        ("/userdata/policy.toml", {"comfy-user": "__safety_steering"}),
        ("/userdata/safety_steering%2Fpolicy.toml", {}),
    ],
)
def test_a_policy_posted_to_userdata(guarded, path, headers):
    before = guarded.status()["policy"]["sha256"]
    policy = (guarded.private / "policy.toml").read_bytes()
    answer(guarded, path, policy.replace(b"strength = 3.0", b"strength = 0.1"), headers=headers)
    assert (guarded.private / "policy.toml").read_bytes() == policy
    assert guarded.status()["policy"]["sha256"] == before
    check_steered(sample_guarded(guarded).record)


def form(**fields):
    """A multipart form with one file."""
    parts = [f'--x\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in fields.items()]
    head = '--x\r\nContent-Disposition: form-data; name="image"; filename="evil.safetensors"\r\n\r\n'
    return ("".join(parts) + head + "evil\r\n--x--\r\n").encode(), {"Content-Type": "multipart/form-data; boundary=x"}


def test_uploads_reach_the_input_folder_only(guarded):
    for prefix in ("", "/api"):
        for kind in ("output", "temp"):
            body, headers = form(type=kind, subfolder="loras")
            assert answer(guarded, f"{prefix}/upload/image", body, headers=headers)[0] == 403
    body, headers = form(type="input", subfolder="../user/__safety_steering")
    assert answer(guarded, "/upload/image", body, headers=headers)[0] == 400
    assert not list(guarded.base_directory.rglob("evil*"))
    body, headers = form(type="input")
    assert answer(guarded, "/upload/image", body, headers=headers)[0] == 200


@pytest.mark.parametrize("path", ["/api/assets", "/manager/queue/install", "/safety_steering/status", "/metrics"])
def test_clients_change_nothing_else(guarded, path):
    assert answer(guarded, path, b"{}", headers={"Content-Type": "application/json"})[0] == 403


def test_status_and_metrics_are_for_the_operator(guarded):
    for path in ("/safety_steering/status", "/metrics"):
        assert answer(guarded, path)[0] == 200
        assert answer(guarded, path, headers={"X-Forwarded-For": "127.0.0.1"})[0] == 403
        assert answer(guarded, path, headers={"X-Forwarded-For": "1.2.3.4", "Authorization": "Bearer x"})[0] == 403
    assert b"safety_steering_jobs_total" in answer(guarded, "/metrics")[1]


def claims_two_gigabytes(data):
    return (2 * 1024**3).to_bytes(8, "little") + data[8:]


def test_a_header_of_two_gigabytes(guarded):
    folder = guarded.base_directory / "input"
    save_file({"latent_tensor": torch.zeros(1, 16, 3, 8, 8)}, folder / "huge.latent")
    path = folder / "huge.latent"
    path.write_bytes(claims_two_gigabytes(path.read_bytes()))
    graph, _, _ = graph_of()
    latent = graph.add("LoadLatent", latent="huge.latent")
    sampler = next(node for node in graph.prompt.values() if node["class_type"] == "KSampler")
    sampler["inputs"]["latent_image"] = latent[0]
    run = guarded.client.run(graph.prompt)
    assert run.error is not None
    assert guarded.record_of(run)["decision"] == "failed"
    vector = guarded.private / OPERATORS
    mine = vector.read_bytes()
    vector.write_bytes(claims_two_gigabytes(mine))
    text = (guarded.private / "policy.toml").read_text(encoding="utf-8")
    guarded.write_policy(text.replace(_sha256_line(text), f'sha256 = "{file_sha256(vector)}"'))
    assert "2147483648 bytes" in refusal_of_any(guarded)
    vector.write_bytes(mine)
    guarded.set_policy()
    check_steered(sample_guarded(guarded).record)


def _sha256_line(text):
    return next(line for line in text.splitlines() if line.startswith("sha256"))


def test_ten_thousand_nodes(guarded):
    graph, _, _ = graph_of()
    for _ in range(10_000):
        graph.add("PrimitiveInt", value=1)
    assert "nodes; this server takes" in refusal_of(guarded, graph)
    check_steered(sample_guarded(guarded).record)


@pytest.mark.parametrize("prompt", [[], "x", 3, None, {"1": 2}, {"1": {}}, {"1": {"class_type": [], "inputs": {}}}])
def test_malformed_prompts(guarded, prompt):
    body = json.dumps({"prompt": prompt}).encode()
    assert answer(guarded, "/prompt", body, headers={"Content-Type": "application/json"})[0] == 400
    assert answer(guarded, "/prompt", b"{", headers={"Content-Type": "application/json"})[0] == 400
    assert guarded.status()["serving"]


# --- outputs that no sampler made


def laundering(guarded):
    """LoadLatent -> VAEDecode -> SaveImage, with latents that the client has uploaded."""
    latent = torch.randn(1, 16, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    folder = guarded.base_directory / "input"
    save_file({"latent_tensor": latent, "latent_format_version_0": torch.tensor([])}, folder / "theirs.latent")
    graph = PromptGraph()
    vae = graph.add("VAELoader", vae_name=TINY_MODELS["wan_vae"].file_name)
    loaded = graph.add("LoadLatent", latent="theirs.latent")
    decoded = graph.add("VAEDecode", samples=loaded[0], vae=vae[0])
    graph.add("SaveImage", images=decoded[0], filename_prefix="laundered")
    return graph


def laundered(guarded):
    return [path for path in guarded.base_directory.rglob("laundered*") if path.suffix == ".png"]


def test_latents_that_were_never_sampled(guarded):
    assert "This comes from no sampler run of this server" in refusal_of(guarded, laundering(guarded))
    assert laundered(guarded) == []
    guarded.set_policy(unsampled="flag")
    run = guarded.client.run(laundering(guarded).prompt).succeeded()
    record = guarded.record_of(run)
    assert (record["verdict"], record["decision"]) == ("unsampled", "delivered")
    assert [output["verdict"] for output in record["outputs"]] == ["unsampled"]
    for path in laundered(guarded):
        path.unlink()


def test_a_steered_branch_does_not_vouch_for_another(guarded):
    graph = laundering(guarded)
    save_latent(graph, WAN.graph(graph, steps=2).samples, "honest")
    assert "This comes from no sampler run of this server" in refusal_of(guarded, graph)
    assert laundered(guarded) == []
    guarded.set_policy(unsampled="flag")
    run = guarded.client.run(graph.prompt).succeeded()
    verdicts = {output["file"].split("_")[0]: output["verdict"] for output in guarded.record_of(run)["outputs"]}
    assert verdicts == {"laundered": "unsampled", "honest": "steered"}
    for path in laundered(guarded):
        path.unlink()


def test_a_node_id_that_pretends_to_be_inside_of_a_sampler(guarded):
    graph = laundering(guarded)
    save_latent(graph, WAN.graph(graph, steps=2).samples, "honest")
    loop(graph, times=1, save=False)
    # core names the loop's inner sampler `s.0.0.1`
    names = {"Hostile_Loop": "s", "LoadLatent": "s.0.0"}
    ids = {node_id: names.get(node["class_type"], node_id) for node_id, node in graph.prompt.items()}
    graph.prompt = {ids[node_id]: node for node_id, node in graph.prompt.items()}
    for node in graph.prompt.values():
        links = {name: value for name, value in node["inputs"].items() if isinstance(value, list)}
        node["inputs"] |= {name: [ids[value[0]], value[1]] for name, value in links.items()}
    assert "This comes from no sampler run of this server" in refusal_of(guarded, graph)
    assert laundered(guarded) == []


# --- the policy changes


def test_results_cached_under_another_policy_are_not_used(guarded, server):
    graph, _, saved = graph_of(seed=31)
    first = guarded.client.run(graph.prompt).succeeded()
    record = guarded.record_of(first)
    graph.prompt[saved.id]["inputs"]["filename_prefix"] = "again"
    again = guarded.client.run(graph.prompt).succeeded()
    reused = guarded.record_of(again)
    # core answered the sampler from its cache; the evidence says so and names the vector all the same
    assert (reused["verdict"], reused["steps"]) == ("steered", 0)
    assert reused["vectors"] == record["vectors"]
    assert reused["outputs"][0]["verdict"] == "steered"
    guarded.set_policy((PolicyRule(strength=1.0),))
    graph.prompt[saved.id]["inputs"]["filename_prefix"] = "thrice"
    changed = guarded.client.run(graph.prompt).succeeded()
    other = guarded.record_of(changed)
    assert other["steps"] == 2
    assert moved(other) == [pytest.approx(4.0, rel=1e-3)]
    assert other["policy_sha256"] != record["policy_sha256"]


JOBS, REWRITES = 40, 10  # bench/soak.py does 200 and 50


def test_queued_jobs_while_the_policy_is_rewritten(guarded):
    strengths = {}

    def rewrite(stop):
        for number in range(REWRITES):
            guarded.set_policy((PolicyRule(strength=1.0 + number % 3),))
            strengths[guarded.status()["policy"]["sha256"]] = 1.0 + number % 3
            stop.wait(0.3)

    graph, _, _ = graph_of(steps=1)
    stop = threading.Event()
    writer = threading.Thread(target=rewrite, args=(stop,))
    writer.start()
    try:
        prompts = []
        for seed in range(JOBS):
            next(node for node in graph.prompt.values() if node["class_type"] == "KSampler")["inputs"]["seed"] = seed
            prompts.append(guarded.client.submit(graph.prompt))
        runs = [guarded.client.result(prompt_id, timeout=240).succeeded() for prompt_id in prompts]
    finally:
        stop.set()
        writer.join()
    records = [guarded.record_of(run) for run in runs]
    for record in records:
        assert moved(record) == [pytest.approx(4.0 * strengths[record["policy_sha256"]], rel=1e-3)]
        assert record["decision"] == "delivered"
    assert len({record["policy_sha256"] for record in records}) > 1
