"""Bad input in the real server: one clear sentence on the node, and the next prompt runs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from safety_steering_pack.commands.api_graph import PromptGraph
from safety_steering_pack.commands.comfy_client import PromptRejected
from safety_steering_pack.safety_steering.errors import VectorFileError
from safety_steering_pack.safety_steering.vectors.file import load_vector, save_vector
from safety_steering_pack.safety_steering.vectors.vector import SafetyVector
from steered_graphs import DEFAULTS, FAMILIES, apply_vector
from tiny.graphs import save_latent
from tiny.vectors import random_vector
from vector_algebra import select

WAN = FAMILIES["wan"]
LONGEST = 700


def rewritten(path: Path, *, metadata: dict[str, str | None] | None = None, **tensors: torch.Tensor | None) -> None:
    """Write a vector file again with some metadata or tensors replaced, or dropped where the new value is None."""
    with safe_open(path, framework="pt") as file:
        old = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        facts = file.metadata() | (metadata or {})
    kept = {name: tensor for name, tensor in (old | tensors).items() if tensor is not None}
    save_file(kept, path, metadata={key: value for key, value in facts.items() if value is not None})


def small(spaces: dict[str, tuple[str, int]] | None = None, **options: Any) -> SafetyVector:
    return random_vector(spaces or {"conditioning": ("umt5xxl.last", 4096)}, family="wan", **options)


def put(vector: SafetyVector, **changes: Any) -> Callable[[Path], None]:
    """A function that saves `vector` and then damages the file."""

    def write(path: Path) -> None:
        save_vector(vector, path)
        if changes:
            rewritten(path, **changes)

    return write


def data(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        save_vector(small(), path)
        path.write_bytes(change(path.read_bytes()))

    return write


@dataclass(frozen=True)
class Case:
    """A vector file, settings of Apply, and the words that the node must say."""

    words: str
    write: Callable[[Path], Any] | None = None  # None: a good file
    settings: dict[str, Any] | None = None
    family: str = "wan"
    node: str = "SafetySteering_ApplySafetySteering"  # says it, unless the loader does


GAP = "conditioning/violence/gap"
BLOCK = select(WAN.vector(), hook_points=(WAN.block,))
CASES = {
    # the file
    "not a safetensors file": Case("not a whole safetensors file", data(lambda whole: b"<html>404 not found</html>")),
    "empty file": Case("its header claims 0 bytes of 0", data(lambda whole: b"")),
    "truncated": Case("not a readable safetensors file", data(lambda whole: whole[:-100])),
    "header of 2 GB": Case(
        "header claims 2147483648 bytes", data(lambda whole: (2 * 1024**3).to_bytes(8, "little") + whole[8:])
    ),
    "NaN in a tensor": Case("gap holds NaN or infinite values", put(small(), **{GAP: torch.tensor([math.nan])})),
    "infinite tensor": Case("gap holds NaN or infinite values", put(small(), **{GAP: torch.tensor([math.inf])})),
    "missing tensor": Case("the tensor conditioning/violence/gap is missing", put(small(), **{GAP: None})),
    "missing metadata": Case("lacks the metadata kind, spaces", put(small(), metadata={"kind": None, "spaces": None})),
    "another kind of file": Case("but not a safety vector", put(small(), metadata={"format": None})),
    "newer format": Case(
        "format version 3; this pack reads versions 1", put(small(), metadata={"format_version": "3"}),
    ),
    # the vector and the model
    "wrong width": Case(
        "(8 wide). This model (wan-4x32-16ch) has wan.conditioning8",
        put(small({"conditioning": ("umt5xxl.last", 8)})),
    ),
    "right width, wrong space": Case(
        "it lives in the space t5xxl.last (4096 wide). This model (wan-4x32-16ch) has umt5xxl.last (4096 wide)",
        put(small({"conditioning": ("t5xxl.last", 4096)})),
    ),
    "other family": Case("This vector is for wan (family wan", put(BLOCK), family="ltxv"),
    "other block count": Case("30 blocks). This model is wan", put(BLOCK.with_info(block_counts={"blocks": 30}))),
    "source vector": Case(
        "This is a source vector: its directions live in a language model",
        put(small({"source.3": ("smollm2-135m/source.3", 576)}).with_info(kind="source")),
    ),
    # what overflows in the run: the sampler says it
    "gap that overflows": Case(
        "At conditioning steering led to values that are not finite numbers. Lower the strength",
        put(small(gap=1e38)),
        {"strength": 50.0, "norm": "none"},
        node="KSampler",
    ),
    "no such block": Case(
        "block.blocks.9.image",
        put(small({"block.blocks.9.image": ("x", 32)}, block_counts={"blocks": 4})),
    ),
    "no such states": Case(
        "take no states at the hook point 'clip_vision'", put(small({"clip_vision": ("x", 1280)})), family="ltxv"
    ),
    "wrong space of image states": Case(
        "at clip_vision it lives in the space x", put(small({"clip_vision": ("x", 1280)}))
    ),
    # the settings
    "strength infinite": Case("bigger than max", settings={"strength": math.inf}),
    "strength NaN": Case("The strength must be a finite number, not nan", settings={"strength": math.nan}),
    "strength no number": Case("could not convert string to float", settings={"strength": "a lot"}),
    "window reversed": Case(
        "The window runs from 0.8 to 0.2. It must start before it ends",
        settings={"window_start": 0.8, "window_end": 0.2},
    ),
    "window NaN": Case("The window runs from nan to 1", settings={"window_start": math.nan}),
    "threshold NaN": Case(
        "The gate's threshold must be a number", settings={"gate": "pooled", "gate.threshold": math.nan}
    ),
    "unknown intervention": Case("Value not in list", settings={"intervention": "delete"}),
    "unknown gate": Case("The gate is none of off, pooled, token", settings={"gate": "sometimes"}),
    "unknown hook point": Case("This vector has no hook point 'clip_vision'", settings={"hook_points": "clip_vision"}),
    "no hook point": Case("No hook point was given", settings={"hook_points": " "}),
    "depth without blocks": Case("needs a vector with block hook points", settings={"hook_points": "0.5"}),
}  # fmt: skip


def refusal(server, prompt: dict[str, Any], expected_node: str) -> str:
    """What the server says about a prompt it must not run, as one text; checks where it says it."""
    node_errors, run = {}, None
    try:
        run = server.client.run(prompt)
    except PromptRejected as rejected:
        node_errors = rejected.node_errors
    if run is None:
        assert {node["class_type"] for node in node_errors.values()} == {expected_node}
        problems = [error for node in node_errors.values() for error in node["errors"]]
        return " ".join(f"{problem['message']} {problem['details']}" for problem in problems)
    assert run.status == "error"
    assert run.error.node_type == expected_node
    return run.error.message


def check_sentence(said: str, words: str) -> None:
    said = said.strip()
    assert words in said
    assert len(said) < LONGEST
    assert "Traceback" not in said
    assert "\n" not in said


def check_healthy(server) -> None:
    """A small good prompt, which runs the model anew and is steered."""
    save_vector(small(), server.models / "safety_vectors" / "good.safetensors")
    server.client.free()
    graph = PromptGraph()
    sampled = WAN.graph(graph, apply_vector("good.safetensors"), steps=1)
    save_latent(graph, sampled.samples, "healthy")
    report = graph.add("SafetySteering_SteeringReport", model=sampled.model, samples=sampled.samples)
    kept = graph.add("PreviewAny", source=report[1])
    run = server.client.run(graph.prompt).succeeded()
    assert json.loads(run.text(kept.id))[0]["status"] == "acted"


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_bad_input_gets_one_sentence_and_the_next_prompt_runs(server, case):
    path = server.models / "safety_vectors" / "bad.safetensors"
    (case.write or put(small()))(path)
    graph = PromptGraph()
    sampled = FAMILIES[case.family].graph(graph, apply_vector(path.name, **(case.settings or {})), steps=1)
    save_latent(graph, sampled.samples, "bad")
    damaged = case.settings is None and "safetensors: " in (said_by_loader := _load_error(path))
    node = "SafetySteering_LoadSafetyVector" if damaged else case.node
    said = refusal(server, graph.prompt, node)
    check_sentence(said, case.words)
    if damaged:
        assert said_by_loader in said
    path.unlink()
    check_healthy(server)


def _load_error(path: Path) -> str:
    try:
        load_vector(path)
    except VectorFileError as error:
        return str(error)
    return ""


def test_a_damaged_file_is_listed_as_such_and_hides_no_other(server):
    folder = server.models / "safety_vectors"
    (folder / "damaged.safetensors").write_bytes(b"nothing")
    save_vector(small(), folder / "whole.safetensors")
    labels = _options(server.client.object_info("SafetySteering_LoadSafetyVector"))
    assert "damaged.safetensors (cannot be read)" in labels
    assert "whole.safetensors (wan, umt5xxl.last)" in labels
    (folder / "damaged.safetensors").unlink()


def _options(node: dict[str, Any]) -> list[str]:
    kind, settings = node["input"]["required"]["vector"]
    return list(kind if isinstance(kind, list) else settings["options"])


OUTSIDE = (
    "../outside.safetensors",
    "sub/../../outside.safetensors",
    "{absolute}",
    "..\\outside.safetensors",
    "",
    "\x00",
)


@pytest.mark.parametrize("name", OUTSIDE)
def test_nothing_outside_the_folder_is_read(server, name):
    outside = save_vector(small(), server.models / "outside.safetensors")
    graph = PromptGraph()
    sampled = WAN.graph(graph, apply_vector(name.format(absolute=outside)), steps=1)
    save_latent(graph, sampled.samples, "outside")
    said = refusal(server, graph.prompt, "SafetySteering_LoadSafetyVector")
    check_sentence(said, "was not found. Put it into models/safety_vectors")
    check_healthy(server)


@pytest.mark.parametrize(
    "name", ["../written", "sub/../../written", "{absolute}", "", "   ", ".safetensors", "a\x00b", "x" * 300]
)
def test_nothing_outside_the_folder_is_written(server, name):
    save_vector(small(), server.models / "safety_vectors" / "good.safetensors")
    before = set(server.models.rglob("*"))
    graph = PromptGraph()
    vector = graph.add("SafetySteering_LoadSafetyVector", vector="good.safetensors")
    chosen = name.format(absolute=server.models / "written")
    graph.add("SafetySteering_SaveSafetyVector", safety_vector=vector[0], filename=chosen, overwrite=False)
    said = refusal(server, graph.prompt, "SafetySteering_SaveSafetyVector")
    check_sentence(said, "is not a valid file name in the folder safety_vectors. Give a plain name")
    assert set(server.models.rglob("*")) == before
    check_healthy(server)


def test_an_existing_file_is_kept_unless_overwriting_is_allowed(server):
    path = save_vector(small(), server.models / "safety_vectors" / "good.safetensors")
    graph = PromptGraph()
    vector = graph.add("SafetySteering_LoadSafetyVector", vector=path.name)
    graph.add("SafetySteering_SaveSafetyVector", safety_vector=vector[0], filename="good", overwrite=False)
    check_sentence(refusal(server, graph.prompt, "SafetySteering_SaveSafetyVector"), "good.safetensors exists already")
    check_healthy(server)


def test_a_link_that_carries_another_type_is_refused(server):
    graph = PromptGraph()
    model = graph.add("UNETLoader", unet_name="wan2.1_t2v_1.3B_fp16.safetensors", weight_dtype="default")
    settings = DEFAULTS | {"model": model[0], "safety_vector": model[0]}
    steered = graph.add("SafetySteering_ApplySafetySteering", settings)
    graph.add("SafetySteeringDev_HookCensus", model=steered[0], after=steered[0])
    said = refusal(server, graph.prompt, "SafetySteering_ApplySafetySteering")
    assert "SAFETY_VECTOR" in said
    check_healthy(server)


def test_with_no_vector_there_the_sentence_says_where_to_put_one(comfy_in_process, tmp_path, monkeypatch):
    import folder_paths
    from safety_steering_pack.bridge.folders import VECTORS, find, vector_labels

    empty = tmp_path / "models" / "safety_vectors"
    empty.mkdir(parents=True)
    monkeypatch.setitem(folder_paths.folder_names_and_paths, VECTORS.folder, ([str(empty)], {".safetensors"}))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    assert vector_labels() == []
    with pytest.raises(VectorFileError, match=r"Put it into models/safety_vectors .* none there yet"):
        find(VECTORS, "any.safetensors")


def test_a_model_of_an_unknown_class_is_refused(comfy_in_process):
    from safety_steering_pack.bridge.steering.apply import apply_steering
    from safety_steering_pack.bridge.steering.settings import SteeringSettings
    from safety_steering_pack.safety_steering.errors import MismatchError

    class NewModel(torch.nn.Module):
        pass

    patcher = comfy_in_process.diffusion_model("wan2.1_t2v_1.3B_fp16.safetensors")
    patcher.model.diffusion_model = NewModel()
    with pytest.raises(MismatchError, match=r"does not support models of class NewModel yet. Supported: wan, "):
        apply_steering(patcher, small(), SteeringSettings(1.0, ("conditioning",)))
