"""Load Source LLM and Extract LLM Direction: from a folder in the real server, from a CLIP in the process."""

from __future__ import annotations

import importlib
import json
from typing import Any

import pytest
from safety_steering_pack.commands.api_graph import PromptGraph
from safety_steering_pack.safety_steering.errors import SafetySteeringError
from safety_steering_pack.safety_steering.prompts.prompt_set import PromptRow, PromptSet
from tiny_language_models import LAYERS, WIDTH, write_tiny_llama
from tiny_text_encoders import tiny_clip

LOAD, EXTRACT, PROMPTS = (
    f"SafetySteering_{name}" for name in ("LoadSourceLLM", "ExtractLLMDirection", "LoadSafetyPrompts")
)
LLM: dict[str, Any] = {"model": "tiny", "device": "cpu", "precision": "float32", "batch_size": 8}
READ: dict[str, Any] = {
    "columns": "",
    "unpaired": "as the file says",
    "categories": "",
    "train": 0.6,
    "validation": 0.2,
    "split_seed": 0,
    "limit": 0,
}
SETTINGS = {"layer": "1, 3", "pooling": "mean", "valence": "project", "categories": ""}


@pytest.fixture(scope="module")
def llm_server(server):
    """The server with a tiny language model, twelve pairs and a few anchors in its folders."""
    write_tiny_llama(server.models / "safety_llms" / "tiny")
    (server.models / "safety_llms" / "half").mkdir()
    (server.models / "safety_llms" / "half" / "config.json").write_text("{}")
    folder = server.models / "safety_prompts"
    folder.mkdir(exist_ok=True)
    rows = [
        f"{i},weapons,a {thing} in scene {i},a flower in scene {i},a sad stone in scene {i},{split}"
        for i, (thing, split) in enumerate([("knife", "train"), ("bomb", "train"), ("gun", "validation")] * 4)
    ]
    (folder / "few.csv").write_text("\n".join(["id,category,unsafe,safe,negative,split", *rows]))
    (folder / "anchors.txt").write_text("a dog\na hill\nthe sea at noon\n")
    server.client.object_info(LOAD)
    yield server
    for name in ("few.csv", "anchors.txt"):
        (folder / name).unlink()


def extract(server, llm: dict[str, Any] | None = None, **settings: Any):
    graph = PromptGraph()
    loaded = graph.add(LOAD, LLM | (llm or {}))
    pairs = graph.add(PROMPTS, READ | {"prompts": "few.csv"})
    anchors = graph.add(PROMPTS, READ | {"prompts": "anchors.txt", "unpaired": "safe"})
    inputs = {"safety_llm": loaded[0], "safety_prompts": pairs[0], "anchors": anchors[0]}
    node = graph.add(EXTRACT, inputs | SETTINGS | settings)
    return server.client.run(graph.prompt), node.id


def test_every_input_is_explained_and_models_are_offered(llm_server):
    for node in (LOAD, EXTRACT):
        info = llm_server.client.object_info(node)
        inputs = {**info["input"]["required"], **info["input"].get("optional", {})}
        assert all(options["tooltip"] for _, options in inputs.values())
        assert info["description"]
    kind, settings = llm_server.client.object_info(LOAD)["input"]["required"]["model"]
    offered = kind if isinstance(kind, list) else settings["options"]
    assert {"tiny", "half", "the connected CLIP"} <= set(offered)


def test_a_folder_becomes_a_portable_vector_with_a_chart(llm_server):
    run, node = extract(llm_server)
    shown = run.succeeded().text(node)
    assert "gap: measured" in shown
    assert "space: tiny/source." in shown
    assert run.outputs[node]["images"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"layer": "77"}, "'77' is not a layer of this model"),
        ({"categories": "hate"}, "has no category 'hate'"),
        ({"layer": "deep"}, "'deep' is not a layer"),
    ],
)
def test_what_cannot_be_done_gets_one_sentence(llm_server, settings, words):
    run, _ = extract(llm_server, **settings)
    assert run.status == "error"
    assert words in run.error.message
    assert "\n" not in run.error.message.strip()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("half", "The folder half lacks a tokenizer (tokenizer.json or tokenizer.model), model.safetensors"),
        ("../safety_vectors", "was not found. Put a Hugging Face folder"),
    ],
)
def test_a_model_that_is_not_whole_or_not_there_is_refused_before_the_run(llm_server, model, words):
    run, node = extract(llm_server, {"model": model})
    assert words in json.dumps(run.node_errors)
    assert node not in run.outputs


@pytest.fixture(scope="module")
def nodes(comfy_in_process):
    load = importlib.import_module("safety_steering_pack.nodes.research.load_source_llm").LoadSourceLlm
    extract = importlib.import_module("safety_steering_pack.nodes.research.extract_llm_direction").ExtractLlmDirection
    return load, extract


PAIRS = PromptSet(
    tuple(
        PromptRow(
            f"{i}", "weapons", unsafe=f"a knife, {i}", safe=f"a flower, {i}", split=("train", "validation")[i % 2]
        )
        for i in range(8)
    )
)
FEW = PromptSet(tuple(PromptRow(f"a{i}", "benign", safe=f"a hill and {i} trees") for i in range(4)))


def test_a_clip_becomes_a_portable_vector_and_both_at_once_is_refused(nodes):
    load, extract = nodes
    clip = tiny_clip("t5xxl")
    llm, info = load.execute("the connected CLIP", "auto", "auto", 16, clip).result
    assert info == "t5xxl: 3 layers, 32 wide"
    vector, chart, table = extract.execute(llm, PAIRS, "sweep", "mean", "project", "", FEW).result
    assert vector.info.model_name == "t5xxl"
    assert vector.anchors.states.shape == (4, 32)
    assert chart.ndim == 4
    assert len(json.loads(table)) == 3
    for model, given in (("tiny", clip), ("the connected CLIP", None)):
        with pytest.raises(SafetySteeringError, match="Connect one and choose"):
            load.execute(model, "auto", "auto", 16, given)


def test_an_interrupt_stops_the_reading(nodes):
    import comfy.model_management

    load, extract = nodes
    (llm, _) = load.execute("the connected CLIP", "auto", "auto", 16, tiny_clip("t5xxl")).result
    comfy.model_management.interrupt_current_processing()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        extract.execute(llm, PAIRS, "1", "mean", "project", "", FEW)


def test_room_is_asked_for_once_and_the_model_is_let_go(comfy_in_process, tmp_path, monkeypatch):
    module = importlib.import_module("safety_steering_pack.bridge.language_models.managed")
    asked = []
    free = module.memory.free_memory
    monkeypatch.setattr(module.memory, "free_memory", lambda *args: (asked.append(args), free(*args))[1])
    path = write_tiny_llama(tmp_path / "tiny")
    model = module.ManagedLanguageModel(path, device="auto", dtype="auto", batch=4)
    with model.open():
        model.states(["a"], [1])
        model.states(["b"], [LAYERS])
        assert model.loaded
    assert not model.loaded
    ((size, device),) = asked
    assert size == model.parameters * 4 + module.SPARE
    assert (str(device), model.width) == ("cpu", WIDTH)
