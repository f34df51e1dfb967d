"""The shipped workflows are what their recipes make of ComfyUI's own templates."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from workflow_builder import native
from workflow_builder.blueprint import PROMOTED, build_blueprint
from workflow_builder.build import BLUEPRINT, VECTOR, WORKFLOWS, diagrams, pages, vector_file
from workflow_builder.chain import VectorFile
from workflow_builder.graph import BYPASSED, NOTES, FlatGraph, every_node, flatten, load_template, templates_version
from workflow_builder.nodes import safety_node
from workflow_builder.page import Group, Note, Page
from workflow_builder.pages import build
from workflow_builder.picture import SIZE, run_thumbnail
from workflow_builder.recipes import RECIPES, Recipe
from workflow_builder.screen import SCREEN

BY_NAME = {recipe.name: recipe for recipe in RECIPES}
OURS = "SafetySteering_"
ANY = VectorFile("any.safetensors", "0" * 64, "any model", "anywhere")


def values(graph: Any, type_: str) -> list[list[Any]]:
    return [node["widgets_values"] for node in graph.nodes.values() if node["type"] == type_]


def what_steers(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    """This pack's nodes in a workflow without the numbers that its template's nodes and links bring along."""
    sockets = ("inputs", "outputs")
    ours = [node for node in every_node(workflow) if node["type"].startswith(OURS)]
    return [
        {
            **{key: value for key, value in node.items() if key not in ("id", "order", *sockets)},
            **{
                key: [(entry["name"], bool(entry.get("link", entry.get("links")))) for entry in node[key]]
                for key in sockets
            },
        }
        for node in ours
    ]


@pytest.mark.parametrize("path", sorted(WORKFLOWS.glob("*.json")), ids=lambda path: path.stem)
def test_a_workflow_is_what_its_builder_makes(path: Path) -> None:
    """Of the templates it was built from: newer ones may have other nodes, but the same steering."""
    written = json.loads(path.read_text(encoding="utf-8"))
    made = pages(vector_file(VECTOR))[path.stem]().workflow()
    if written["extra"]["built_from"] == made["extra"]["built_from"]:
        assert written == made, "run make workflows"
    assert what_steers(written) == what_steers(made)


def as_newer_templates_have_it(template: dict[str, Any]) -> dict[str, Any]:
    """LTX-2's template as from 0.11.97 on: another node resizes the start image, and nodes without values have null."""
    (subgraph,) = template["definitions"]["subgraphs"]
    for node in subgraph["nodes"]:
        node["widgets_values"] = node["widgets_values"] or None
        if node["type"] == "ResizeImagesByLongerEdge":
            old, node["id"], node["type"] = node["id"], node["id"] + 1, "ResizeImageMaskNode"
            node["widgets_values"] = ["scale longer dimension", 1536, "area"]
            node["inputs"][0] |= {"name": "input", "type": "IMAGE,MASK"}
    for link in subgraph["links"]:
        for end in ("origin_id", "target_id"):
            link[end] += link[end] == old
    return template


def test_the_builder_reads_newer_templates_too(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = BY_NAME["ltx2_i2v"]
    here = build(recipe, ANY).workflow()
    template = load_template(recipe.template)
    if "ResizeImagesByLongerEdge" not in {node["type"] for node in every_node(template)}:
        pytest.skip(f"{templates_version()} are newer")
    monkeypatch.setattr("workflow_builder.pages.load_template", lambda name: as_newer_templates_have_it(template))
    there = build(recipe, ANY)
    resizers = [node["id"] for node in every_node(there.workflow()) if node["type"].startswith("ResizeImage")]
    assert sorted(resizers) == [102, 113]
    assert what_steers(there.workflow()) == what_steers(here)


def test_every_workflow_without_a_picture_of_a_run_has_a_diagram() -> None:
    drawn = diagrams()
    assert set(pages(ANY)) - set(drawn) == {"compare_t2v", *native.PAGES}
    assert all(len(picture.getcolors(SIZE**2)) > 5 for picture in drawn.values())
    assert run_thumbnail("A run", "two pictures", list(drawn.values())[:2], ("one", "two")).size == (SIZE, SIZE)


def test_a_node_has_the_sockets_of_its_schema_and_no_others() -> None:
    node = safety_node("TransferDirection", [1.0], "Carry")
    assert node["inputs"] == [
        {"name": "safety_vector", "type": "SAFETY_VECTOR"},
        {"name": "safety_alignment", "type": "SAFETY_ALIGNMENT"},
    ]
    assert node["outputs"] == [{"name": "safety_vector", "type": "SAFETY_VECTOR"}, {"name": "card", "type": "STRING"}]
    assert safety_node("SafetyAB")["inputs"][-1] == {"name": "sigmas", "type": "SIGMAS", "shape": 7}
    with pytest.raises(KeyError, match="SafetySteering_NoSuchNode"):
        safety_node("NoSuchNode")


def opened(recipe: Recipe) -> FlatGraph:
    """A recipe's workflow with its subgraph opened."""
    return flatten(build(recipe, ANY).workflow(), recipe.keep)


@pytest.mark.parametrize("path", sorted(WORKFLOWS.glob("*.json")), ids=lambda path: path.stem)
def test_a_workflow_has_titled_frames_a_note_and_a_thumbnail(path: Path) -> None:
    workflow = json.loads(path.read_text(encoding="utf-8"))
    shown = [node for node in workflow["nodes"] if node["type"] not in NOTES]
    assert [node for node in every_node(workflow) if node["type"].startswith(OURS)] == [
        node for node in shown if node["type"].startswith(OURS)
    ], "what steers is not hidden in a subgraph"
    assert len(workflow["groups"]) > 2
    assert all(re.match(r"Step \d+ - .", group["title"]) for group in workflow["groups"])
    notes = [node for node in workflow["nodes"] if node["type"] in NOTES]
    assert any("first" in node.get("title", "").lower() for node in notes)
    with Image.open(path.with_suffix(".jpg")) as thumbnail:
        assert min(thumbnail.size) >= 200


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_the_templates_nodes_keep_their_settings(recipe: Recipe) -> None:
    """Only the start image's name, the prompt and what happens to the seed after a run differ."""
    template = load_template(recipe.template)
    originals = {node["id"]: node for node in template["nodes"]}
    for subgraph in template.get("definitions", {}).get("subgraphs", []):
        originals |= {node["id"]: node for node in subgraph["nodes"]}
    kept = [node for node in opened(recipe).nodes.values() if not node["type"].startswith(OURS)]
    assert len(kept) > 7
    for node in kept:
        original = originals[node["id"]]
        assert node["type"] == original["type"]
        for index, value in enumerate(node["widgets_values"]):
            expected = original["widgets_values"][index]
            if (node["id"], index) == (recipe.prompt, 0):
                assert value == recipe.first.text
            elif node["id"] in recipe.start_images and index == 0:
                assert (value, expected.rpartition(".")[2]) in {("example.png", "png"), ("example.png", "jpg")}
            else:
                assert value == ("fixed" if expected == "randomize" else expected)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_every_sampler_runs_on_a_steered_model(recipe: Recipe) -> None:
    graph = opened(recipe)
    samplers = f"KSampler(Advanced)?$|SamplerCustom$|CFGG|{OURS}SafetyAB"
    takers = [id_ for id_, node in graph.nodes.items() if re.match(samplers, node["type"])]
    assert len(takers) == len(recipe.steered)
    for taker in takers:
        seen = []
        while (socket := graph.source(taker, "model")) is not None:
            taker = socket[0]
            seen.append(graph.nodes[taker]["type"])
        kind = "ApplySafetySteering" if recipe.five else "SafeModel"
        assert [name for name in seen if name.startswith(OURS)] == [f"{OURS}{kind}"]


@pytest.mark.parametrize("recipe", [one for one in RECIPES if not one.five], ids=lambda recipe: recipe.name)
def test_a_page_with_safe_model_fits_on_one_screen(recipe: Recipe) -> None:
    """Wires behind nodes are looked for in the browser."""
    workflow = build(recipe, ANY).workflow()
    assert workflow["extra"]["ds"]["scale"] == 1
    boxes = [group["bounding"] for group in workflow["groups"]]
    boxes += [
        [node["pos"][0], node["pos"][1] - 30, node["size"][0], node["size"][1] + 30] for node in workflow["nodes"]
    ]
    boxes += [[*reroute["pos"], 0, 0] for reroute in workflow["extra"]["reroutes"]]
    assert min(min(box[:2]) for box in boxes) >= 0
    assert [max(box[axis] + box[axis + 2] for box in boxes) <= SCREEN[axis] for axis in (0, 1)] == [True, True]
    columns = {box[0]: box[1] + box[3] for box in boxes if box[2] > 0}
    lowest = max(columns.values())
    bottoms = {
        left: max(box[1] + box[3] for box in boxes if box[0] == left)
        for left in columns
        if left in {group["bounding"][0] for group in workflow["groups"]}
    }
    assert all(lowest - bottom < 30 for bottom in bottoms.values()), "a column with a hole below it"


def test_the_comparison_samples_as_the_template_does() -> None:
    graph = build(BY_NAME["compare_t2v"], ANY).graph
    sampler = next(node for node in load_template("text_to_video_wan")["nodes"] if node["type"] == "KSampler")
    ((seed, after, *rest, fps),) = values(graph, f"{OURS}SafetyAB")
    assert [seed, *rest] == sampler["widgets_values"][:1] + sampler["widgets_values"][2:]
    assert (after, fps) == ("fixed", 16)
    (saved,) = (id_ for id_, node in graph.nodes.items() if node["type"] == "SaveVideo")
    compared, output = graph.source(saved, "video")
    assert graph.nodes[compared]["outputs"][output]["name"] == "video"
    assert not values(graph, "KSampler")


def test_the_blueprint_is_what_its_builder_makes() -> None:
    written = json.loads(BLUEPRINT.read_text(encoding="utf-8"))
    assert written == build_blueprint(), "run make workflows"


def test_the_blueprint_holds_the_chain_and_shows_what_an_artist_moves() -> None:
    written = build_blueprint()
    (outside,), (inside,) = written["nodes"], written["definitions"]["subgraphs"]
    assert outside["type"] == inside["id"]
    assert [entry["name"] for entry in outside["inputs"]] == ["model", "clip", *(widget for widget, _ in PROMOTED)]
    links = {link["id"]: link for link in inside["links"]}
    nodes = {node["id"]: node for node in inside["nodes"]}
    for entry in inside["inputs"]:
        for link in (links[number] for number in entry["linkIds"]):
            socket = nodes[link["target_id"]]["inputs"][link["target_slot"]]
            assert (socket["name"], socket["link"]) == (entry["name"], link["id"])
    kinds = [node["type"].removeprefix(OURS) for node in inside["nodes"] if node["type"] not in NOTES]
    assert kinds == ["SafeModel"]
    (result,) = inside["outputs"][0]["linkIds"]
    assert nodes[links[result]["origin_id"]]["type"] == f"{OURS}SafeModel"


def test_a_switch_is_set_as_the_template_has_it() -> None:
    graph = flatten(load_template(BY_NAME["wan22_t2v_14b"].template))
    assert not values(graph, "ComfySwitchNode")
    assert not values(graph, "LoraLoaderModelOnly"), "the template's fast mode is off"
    assert [number for number, _ in values(graph, "PrimitiveInt")] == [20, 10]


def test_a_bypassed_node_passes_its_input_on_or_stays_bypassed() -> None:
    loras = values(flatten(load_template(BY_NAME["ltx2_t2v"].template)), "LoraLoaderModelOnly")
    assert [name for name, _ in loras] == ["ltx-2-19b-distilled-lora-384.safetensors"]
    kept = flatten(load_template(BY_NAME["wan22_ti2v_5b"].template), keep_bypassed=[56]).nodes[56]
    assert (kept["type"], kept["mode"]) == ("LoadImage", BYPASSED)


def test_a_page_without_a_place_for_every_node_is_refused() -> None:
    graph = flatten(load_template("text_to_video_wan"))
    some = [Group("Some", list(graph.nodes)[1:])]
    with pytest.raises(ValueError, match="every node stands in one frame"):
        Page("broken", graph, Note("first", ""), [some])
