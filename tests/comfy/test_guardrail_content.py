"""What outputs of a guarded server are made of: nothing is called steered that no sampler run made."""

from __future__ import annotations

import threading

import pytest
import torch
from attack_graphs import WAN, graph_of, last_touch, loop, pictures, sampled, their_latent, their_picture
from guarded import PolicyRule, moved, once, outcome, refusal_of
from safetensors.torch import save_file
from safety_steering_pack.commands.api_graph import PromptGraph
from safety_steering_pack.guardrail.evidence import verify_file
from steered_graphs import FAMILIES, patch
from tiny.graphs import save_latent
from tiny.models import TINY_MODELS


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
    assert "no sampler run of this server made it" in refusal_of(guarded, laundering(guarded))
    assert laundered(guarded) == []
    guarded.set_policy(unsampled="flag")
    run = guarded.client.run(laundering(guarded).prompt).succeeded()
    record = guarded.record_of(run)
    assert (record["verdict"], record["decision"]) == ("not sampled here", "delivered")
    assert [output["verdict"] for output in record["outputs"]] == ["not sampled here"]
    for path in laundered(guarded):
        path.unlink()


def test_a_steered_branch_does_not_vouch_for_another(guarded):
    graph = laundering(guarded)
    save_latent(graph, WAN.graph(graph, steps=2).samples, "honest")
    assert "no sampler run of this server made it" in refusal_of(guarded, graph)
    assert laundered(guarded) == []
    guarded.set_policy(unsampled="flag")
    run = guarded.client.run(graph.prompt).succeeded()
    verdicts = {output["file"].split("_")[0]: output["verdict"] for output in guarded.record_of(run)["outputs"]}
    assert verdicts == {"laundered": "not sampled here", "honest": "steered"}
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
    assert "no sampler run of this server made it" in refusal_of(guarded, graph)
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


# --- the record follows the value


def saved_verdicts(guarded, graph, **policy):
    """The verdict of each file that a graph saves where the policy delivers all."""
    guarded.set_policy(unsampled="flag", **policy)
    run = guarded.client.run(once(graph)).succeeded()
    record = guarded.record_of(run)
    key = guarded.status()["public_key"]
    for path in guarded.output_files(run):
        assert verify_file(path, [key])["verdict"] in {output["verdict"] for output in record["outputs"]}
    assert len(guarded.output_files(run)) == len(record["outputs"]) > 0
    return [(output["verdict"], output["client_inputs"], output["share"]) for output in record["outputs"]]


def test_a_batched_picture_of_the_client_that_is_picked_out_again(guarded):
    graph = PromptGraph()
    batch = graph.add("ImageBatch", image1=pictures(graph, sampled(graph)), image2=their_picture(guarded, graph))
    picked = graph.add("ImageFromBatch", image=batch[0], batch_index=1, length=1)
    graph.add("SaveImage", images=picked[0], filename_prefix="laundered")
    assert "it contains content that no sampler run of this server made" in refusal_of(guarded, graph)
    assert not laundered(guarded)
    ((verdict, client, _),) = saved_verdicts(guarded, graph)
    assert verdict == "contains other content"
    assert "(LoadImage)" in client[0]


@pytest.mark.parametrize("times", [0.0, 1.0])
def test_their_latent_added_to_a_sampled_one_and_finished_by_a_sampler(guarded, times):
    graph = PromptGraph()
    faded = graph.add("LatentMultiply", samples=sampled(graph), multiplier=times)
    added = graph.add("LatentAdd", samples1=faded[0], samples2=their_latent(guarded, graph))
    finished = last_touch(graph, added[0])
    save_latent(graph, finished, "finished")
    ((verdict, client, share),) = saved_verdicts(guarded, graph)
    assert verdict == "steered from client content"
    assert "(LoadLatent)" in client[0]
    assert share < 0.01


@pytest.mark.parametrize(("denoise", "share"), [(0.4, 0.9), (1.0, 1.0)])
def test_image_to_image_says_so(guarded, denoise, share):
    graph = PromptGraph()
    first = sampled(graph, steps=5, denoise=denoise)
    vae = graph.add("VAELoader", vae_name=TINY_MODELS["wan_vae"].file_name)
    encoded = graph.add("VAEEncode", pixels=their_picture(guarded, graph), vae=vae[0])
    graph.prompt[first[0]]["inputs"]["latent_image"] = encoded[0]
    save_latent(graph, first, "img2img")
    ((verdict, client, found),) = saved_verdicts(guarded, graph)
    assert (verdict, len(client)) == ("steered from client content", 1)
    assert 0 < found <= share
    guarded.set_policy(deliver=["steered"])
    assert "it was made from content of the client" in refusal_of(guarded, graph)


def on_their_latent(guarded, graph, *sigmas, noise="DisableNoise"):
    """SamplerCustomAdvanced on the client's latent, once for each list of sigmas."""
    settings = graph.prompt[sampled(graph)[0]]["inputs"]
    guider = graph.add("BasicGuider", model=settings["model"], conditioning=settings["positive"])
    sampler, noise = graph.add("KSamplerSelect", sampler_name="euler"), graph.add(noise)
    latent = their_latent(guarded, graph)
    for given in sigmas:
        links = {"noise": noise[0], "guider": guider[0], "sampler": sampler[0], "latent_image": latent}
        latent = graph.add("SamplerCustomAdvanced", sigmas=graph.add("ManualSigmas", sigmas=given)[0], **links)[0]
    return latent


def test_a_run_that_may_change_nothing_has_made_nothing(guarded):
    """Under a mask of zeros, or below the lowest noise level, the latents stay the client's."""
    graph = PromptGraph()
    masked = sampled(graph)
    mask = graph.add("SolidMask", value=0.0, width=64, height=64)
    theirs = graph.add("SetLatentNoiseMask", samples=their_latent(guarded, graph), mask=mask[0])
    graph.prompt[masked[0]]["inputs"] |= {"latent_image": theirs[0], "denoise": 0.5}
    save_latent(graph, masked, "masked")
    assert "no sampler run of this server made it" in refusal_of(guarded, graph)
    graph = PromptGraph()
    save_latent(graph, on_their_latent(guarded, graph, "-0.5, 0.0"), "below")
    assert "no sampler run of this server made it" in refusal_of(guarded, graph)


@pytest.mark.parametrize(
    ("sigmas", "share"),
    [
        (("1.0, 0.5", "0.5, 0.1"), 0.9),  # a run in two parts
        (("0.2, 0.1", "0.3, 0.2", "0.4, 0.3"), 0.1),  # touches at ever higher levels are no long run
        (("0.3, 0.1", "0.2, 0.1"), 0.2),
    ],
)
def test_the_share_of_several_runs(guarded, sigmas, share):
    graph = PromptGraph()
    save_latent(graph, on_their_latent(guarded, graph, *sigmas), "touched")
    ((verdict, _, found),) = saved_verdicts(guarded, graph)
    assert verdict == "steered from client content"
    assert found == pytest.approx(share, abs=1e-3)


def test_of_several_pictures_the_share_is_that_of_the_least_sampled_one(guarded):
    graph = PromptGraph()
    touched = FAMILIES["flux"].graph(graph, steps=2).samples
    empty = graph.prompt[touched[0]]["inputs"]["latent_image"]
    theirs = graph.add("LatentBatch", samples1=empty, samples2=empty)
    masks = [graph.add("SolidMask", value=value, width=64, height=64)[0] for value in (1.0, 0.001)]
    pictures = [graph.add("MaskToImage", mask=mask)[0] for mask in masks]
    both = graph.add("ImageBatch", image1=pictures[0], image2=pictures[1])
    mask = graph.add("ImageToMask", image=both[0], channel="red")
    masked = graph.add("SetLatentNoiseMask", samples=theirs[0], mask=mask[0])
    graph.prompt[touched[0]]["inputs"] |= {"latent_image": masked[0]}
    second = graph.add("LatentFromBatch", samples=touched, batch_index=1, length=1)
    save_latent(graph, second[0], "second")
    ((_, _, found),) = saved_verdicts(guarded, graph, rules=(PolicyRule(key="flux"),))
    assert found == pytest.approx(0.001, abs=1e-4)


def test_latents_in_which_the_noise_drowns(guarded):
    """Multiplied latents keep their picture at any noise level, so little of them counts as sampled here."""
    graph = PromptGraph()
    touched = on_their_latent(guarded, graph, "0.9, 0.0")
    loud = their_latent(guarded, graph)
    for _ in range(2):
        loud = graph.add("LatentMultiply", samples=loud, multiplier=10.0)[0]
    graph.prompt[touched[0]]["inputs"]["latent_image"] = loud
    save_latent(graph, touched, "loud")
    ((verdict, _, found),) = saved_verdicts(guarded, graph)
    assert verdict == "steered from client content"
    assert found < 0.01
    guarded.set_policy(least_share=0.3)
    assert "(least_share)" in refusal_of(guarded, graph)


def test_sigmas_that_the_model_does_not_have(guarded):
    graph = PromptGraph()
    save_latent(graph, on_their_latent(guarded, graph, "1000.0, 999.0"), "far")
    refused = refusal_of(guarded, graph)
    assert "the sampler called the model at noise levels that it does not have." in refused
    assert "Use sigmas of one of ComfyUI's schedulers." in refused


def test_the_least_share_of_image_to_image(guarded):
    graph = PromptGraph()
    sampled(graph)
    save_latent(graph, last_touch(graph, their_latent(guarded, graph)), "touched")
    guarded.set_policy(least_share=0.3)
    refused = refusal_of(guarded, graph)
    assert "only 0.0001 of the noise range was sampled here; this server asks for 0.3 (least_share)" in refused


def test_a_second_pass_stays_steered(guarded):
    graph = PromptGraph()
    first = sampled(graph)
    settings = graph.prompt[first[0]]["inputs"]
    again = graph.add("KSampler", {**settings, "steps": 5, "denoise": 0.4, "latent_image": first})
    save_latent(graph, again[0], "second")
    assert saved_verdicts(guarded, graph) == [("steered", [], 1.0)]


def test_uploaded_sound_in_a_film(guarded):
    graph = PromptGraph()
    images = pictures(graph, sampled(graph, length=5))
    silence = graph.add("EmptyAudio", duration=1.0, sample_rate=44100, channels=2)
    film = graph.add("CreateVideo", images=images, fps=8.0, audio=silence[0])
    graph.add("SaveVideo", video=film[0], filename_prefix="laundered", format="auto", codec="auto")
    assert "it contains content that no sampler run" in refusal_of(guarded, graph)
    assert [verdict for verdict, *_ in saved_verdicts(guarded, graph)] == ["contains other content"]


def test_a_sampler_of_another_pack(guarded):
    graph = PromptGraph()
    first = sampled(graph)
    settings = graph.prompt[first[0]]["inputs"]
    theirs = graph.add("Hostile_ForeignSampler", model=settings["model"], latent=settings["latent_image"])
    faded = graph.add("LatentMultiply", samples=first, multiplier=0.0)
    added = graph.add("LatentAdd", samples1=faded[0], samples2=theirs[0])
    save_latent(graph, added[0], "foreign")
    said = refusal_of(guarded, graph)
    assert f"Node {theirs.id}, Hostile_ForeignSampler: It takes a model and gives pictures" in said


def test_an_empty_latent_beside_a_sampled_one(guarded):
    graph = PromptGraph()
    first = sampled(graph)
    empty = graph.prompt[first[0]]["inputs"]["latent_image"]
    both = graph.add("LatentBatch", samples1=first, samples2=empty)
    save_latent(graph, graph.add("LatentFromBatch", samples=both[0], batch_index=1, length=1)[0], "empty")
    assert saved_verdicts(guarded, graph) == [("not sampled here", [], 0.0)]


def test_a_switch_passes_on_what_it_chose(guarded):
    graph = PromptGraph()
    images = pictures(graph, sampled(graph))
    chosen = graph.add("ComfySwitchNode", switch=True, on_true=images, on_false=their_picture(guarded, graph))
    graph.add("SaveImage", images=chosen[0], filename_prefix="chosen")
    assert saved_verdicts(guarded, graph) == [("steered", [], 1.0)]


def test_what_a_cache_answered_is_counted(guarded):
    caching = {"reuse_threshold": 3.0, "start_percent": 0.2, "end_percent": 1.0, "verbose": False}
    graph, _, saved = graph_of(patch("EasyCache", caching), steps=6)
    record = outcome(guarded, graph, saved.id).record
    (output,) = record["outputs"]
    assert output["cached_calls"] == record["cached_calls"] > 0
    assert output["calls"] == output["steered_calls"] + output["cached_calls"]


def test_a_sampler_that_also_decodes_is_let_through(guarded):
    graph = PromptGraph()
    first = sampled(graph)
    settings = graph.prompt[first[0]]["inputs"]
    vae = graph.add("VAELoader", vae_name=TINY_MODELS["wan_vae"].file_name)
    links = {name: settings[name] for name in ("model", "positive", "negative")}
    full = graph.add("Hostile_FullSampler", links, latent=settings["latent_image"], optional_vae=vae[0])
    graph.add("SaveImage", images=full[2], filename_prefix="full")
    save_latent(graph, full[1], "full")
    del graph.prompt[first[0]]
    assert {verdict for verdict, *_ in saved_verdicts(guarded, graph)} == {"steered"}
