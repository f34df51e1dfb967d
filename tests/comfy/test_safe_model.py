"""Safe Model makes what the five nodes make, and takes the best vector; Apply's settings recommended and manual."""

from __future__ import annotations

import importlib
from dataclasses import replace

import pytest
import torch
from safety_steering_pack.commands.api_graph import PromptGraph
from safety_steering_pack.safety_steering.errors import SafetySteeringError
from safety_steering_pack.safety_steering.vectors.file import load_vector, save_vector
from safety_steering_pack.safety_steering.vectors.vector import Suggestion
from steered_graphs import (
    DEFAULTS,
    FAMILIES,
    apply_vector,
    plain,
    random_file,
    run_anew,
    sample,
    with_detector,
)
from tiny.graphs import save_latent, wan21_t2v
from tiny.models import TINY_MODELS
from tiny.workflows import STAND_IN_CLIP, WIDTH
from workflow_builder.build import VECTOR

SAFE, APPLY, GRID = (f"SafetySteering_{name}" for name in ("SafeModel", "ApplySafetySteering", "StrengthGrid"))
BUNDLED = VECTOR.name


def clip_of(graph: PromptGraph):
    return graph.add(STAND_IN_CLIP, kind="wan", width=WIDTH)[0]


def safe(vector: str = BUNDLED, clip: bool = True, **widgets):
    """A function that puts Safe Model on a model link."""

    def apply(graph, model):
        links = {"clip": clip_of(graph)} if clip else {}
        return graph.add(SAFE, {"vector": vector, "level": 1.0, "mix": "", **widgets}, model=model, **links)[0]

    return apply


def five_nodes(mix: str = "", **settings):
    """The same chain by hand, with the nodes' defaults."""

    def apply(graph, model):
        source = graph.add("SafetySteering_LoadSafetyVector", vector=BUNDLED)[0]
        chosen = {"target": "conditioning", "target.space": "auto", "method": "ridge", "held_out": 0.2, "seed": 0}
        fit = graph.add(
            "SafetySteering_FitBenignAlignment", chosen, safety_vector=source, clip=clip_of(graph), model=model
        )
        carried = graph.add(
            "SafetySteering_TransferDirection", safety_vector=source, safety_alignment=fit[0], sharpen=0.2
        )[0]
        mixer = graph.add("SafetySteering_CategoryMixer", preset="standard", mix=mix, safety_vector=carried)[0]
        return graph.add(APPLY, settings, model=model, safety_vector=mixer)[0]

    return apply


@pytest.mark.parametrize(("level", "mix"), [(1.0, ""), (2.0, "violence=2, hate=0")])
def test_safe_model_makes_what_the_five_nodes_make(server, level, mix):
    one = sample(server, "wan", safe(level=level, mix=mix))
    five = sample(server, "wan", five_nodes(mix, **{"settings": "recommended", "settings.level": level}))
    assert torch.equal(one.latent, five.latent)
    assert one.trace["settings"] == five.trace["settings"]
    assert (one.trace["settings"]["level"], one.trace["settings"]["basis"]) == (level, one.trace["settings"]["basis"])


def told(run) -> dict[str, dict]:
    """What a run sent to the browser, node by node."""
    return {event["data"]["node"]: event["data"]["output"] for event in run.events if event["type"] == "executed"}


@pytest.mark.parametrize("steering", [safe(), five_nodes("violence=2", settings="recommended")])
def test_a_cached_result_tells_a_browser_what_its_run_told(server, steering):
    graph = PromptGraph()
    save_latent(graph, wan21_t2v(graph, steering, steps=1).samples, "cached")
    words = told(server.client.run(run_anew(graph)).succeeded())
    again = server.client.run(graph.prompt).succeeded()
    assert set(words) <= again.cached_nodes
    assert any("text" in output for output in words.values())
    assert told(again) == words


@pytest.mark.parametrize("steering", [safe(level=0.0), five_nodes(settings="recommended", **{"settings.level": 0})])
def test_level_0_is_off_bit_for_bit(server, steering):
    result = sample(server, "wan", steering)
    assert torch.equal(result.latent, plain(server, "wan"))
    assert result.trace["status"] == "off"


def test_a_vector_made_for_the_model_needs_no_clip(server):
    found = sample(server, "wan", safe(random_file(server, "wan"), clip=False))
    by_hand = sample(
        server, "wan", apply_vector(random_file(server, "wan"), settings="recommended", **{"settings.level": 1})
    )
    assert torch.equal(found.latent, by_hand.latent)


def said(server, steering) -> str:
    """The error of a run."""
    graph = PromptGraph()
    save_latent(graph, wan21_t2v(graph, steering, steps=1).samples, "safe")
    error = server.client.run(run_anew(graph)).error
    assert error is not None
    return error.message


def test_a_portable_vector_without_clip_is_refused_in_one_sentence(server):
    assert f"{BUNDLED} is portable and is fitted to your model through its text encoder: connect clip" in said(
        server, safe(clip=False)
    )


def test_the_outputs_open_the_node(server):
    graph = PromptGraph()
    loader = graph.add("UNETLoader", unet_name=TINY_MODELS["wan21_t2v"].file_name, weight_dtype="default")
    made = graph.add(
        SAFE, {"vector": BUNDLED, "level": 0.5, "mix": "violence=1.5"}, model=loader[0], clip=clip_of(graph)
    )
    graph.add("PreviewAny", source=made[3])
    graph.add("CLIPTextEncode", text="a cat", clip=made[1])
    apply = graph.add(APPLY, {"settings": "recommended"}, model=loader[0], safety_vector=made[2])
    latent = graph.add("EmptyLatentImage", width=64, height=64, batch_size=1)
    graph.add("SafetySteeringDev_HookCensus", model=apply[0], after=latent[0])
    run = server.client.run(graph.prompt).succeeded()
    report = run.text(made.id)
    assert report.startswith(f"{BUNDLED}: chosen by you.\nSettings: clamp at the prompt, strength ")
    assert "violence=1.5" in report
    assert run.outputs[made.id]["mix"][0]["weights"]["violence"] == 1.5


@pytest.fixture
def folder(tmp_path, monkeypatch, comfy_in_process):
    """An empty models/safety_vectors."""
    import folder_paths

    monkeypatch.setitem(folder_paths.folder_names_and_paths, "safety_vectors", ([str(tmp_path)], {".safetensors"}))
    folder_paths.filename_list_cache.clear()
    yield tmp_path
    folder_paths.filename_list_cache.clear()


def test_auto_takes_the_calibrated_then_the_native_then_the_portable_vector(folder, comfy_in_process):
    module = importlib.import_module("safety_steering_pack.bridge.safe_model")
    maps = importlib.import_module("safety_steering_pack.bridge.models.model_map")
    shape = maps.patcher_shape(comfy_in_process.diffusion_model(TINY_MODELS["wan21_t2v"].file_name))

    def put(name, vector):
        import folder_paths

        save_vector(vector, folder / f"{name}.safetensors")
        folder_paths.filename_list_cache.clear()

    def taken():
        found = module.choose_vector("auto", shape)
        return found.name.removesuffix(".safetensors"), found.why

    (folder / "damaged.safetensors").write_bytes(b"no vector")
    put("another_model", FAMILIES["ltxv"].vector())
    with pytest.raises(SafetySteeringError, match=r"fits this model .*, and none is portable"):
        taken()
    put("b_portable", load_vector(VECTOR))
    assert taken()[0] == "b_portable"
    assert "chosen by auto: portable, fitted to this model" in taken()[1]
    native = FAMILIES["wan"].vector()
    put("c_native", native)
    assert taken() == ("c_native", f"chosen by auto: made for this model, {shape.name}, and not calibrated on it")
    own = Suggestion(strength=3.0, hook_points=("conditioning",), basis="calibrated", basis_model=shape.name)
    put("detecting", with_detector(native, native.at("conditioning").space))
    assert taken()[0] == "detecting"
    (folder / "detecting.safetensors").unlink()
    put("d_elsewhere", native.with_info(suggestion=replace(own, basis_model="another")))
    assert taken()[0] == "c_native"
    put("e_here", native.with_info(suggestion=own))
    assert taken() == ("e_here", f"chosen by auto: calibrated on this model, {shape.name}")


def test_a_prompt_of_before_there_were_settings_runs_as_manual(server):
    old = sample(server, "wan", apply_vector(random_file(server, "wan"), gate="pooled", **{"gate.threshold": 9}))
    manual = apply_vector(random_file(server, "wan"), gate="pooled", **{"gate.threshold": 9}, settings="manual")
    assert torch.equal(old.latent, sample(server, "wan", manual).latent)
    assert {name: old.trace["settings"][name] for name in ("strength", "branch")} == {
        name: DEFAULTS[name] for name in ("strength", "branch")
    }
    assert old.trace["settings"]["level"] is None


def test_apply_without_any_setting_does_what_is_recommended(server):
    bare = sample(server, "wan", five_nodes())
    assert torch.equal(bare.latent, sample(server, "wan", safe()).latent)
    assert bare.trace["settings"]["level"] == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"settings": "best"}, "The settings is none of recommended, manual"),
        ({"settings": "manual", "gate": "closed"}, "The gate is none of off, pooled, token"),
    ],
)
def test_an_unknown_choice_is_refused(server, settings, words):
    assert words in said(server, five_nodes(**settings))


def test_a_grid_varies_the_level_of_recommended_settings(server):
    graph = PromptGraph()
    steering = safe(random_file(server, "wan"), clip=False, level=0.5)
    wan21_t2v(graph, steering, length=1)
    sampler = next(node for node in graph.prompt.values() if node["class_type"] == "KSampler")
    vae = graph.add("VAELoader", vae_name=TINY_MODELS["wan_vae"].file_name)
    sampler["inputs"] |= {
        "vae": vae[0],
        "fps": 8.0,
        "strengths": "0, 1",
        "categories": "",
        "cell_width": 64,
        "steps": 1,
    }
    sampler["class_type"] = GRID
    (grid,) = (id_ for id_, node in graph.prompt.items() if node is sampler)
    lines = server.client.run(graph.prompt).succeeded().text(grid).splitlines()
    assert [line.split(":")[0] for line in lines] == ["unsteered", "as mixed, level 1"]
