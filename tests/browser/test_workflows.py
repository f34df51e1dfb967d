"""Every shipped workflow opens in the real frontend without a red node, and what it sends executes on tiny models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from comfy_server import PACK_FOLDER, ComfyServer
from frontend import (
    GRAPH_BOUNDS,
    LOAD,
    NODE_PROBLEMS,
    OVERLAPS,
    WIRES_BEHIND,
    api_prompt,
    drawn_overlaps,
    open_frontend,
    open_template,
    open_workflow,
    picture_of_graph,
    run_from_the_button,
    toasts,
    vue_nodes,
)
from node_definitions import prompt_problems
from panels import MODES
from playground import WORKFLOWS
from playwright.sync_api import Browser, Page
from tiny.workflows import SIZES, STAND_IN_CLIP, STAND_IN_VISION, tiny_variant
from workflow_builder.graph import every_node
from workflow_builder.native import PAGES as NATIVE
from workflow_builder.recipes import RECIPES

PORTABLE = [recipe.name for recipe in RECIPES]
OTHERS = sorted({path.stem for path in WORKFLOWS.glob("*.json")} - {*PORTABLE, *NATIVE})
OF_OLD = sorted((Path(__file__).resolve().parents[1] / "workflows_of_old").glob("*/*.json"))
CHAIN = (
    "SafetySteering_LoadSafetyVector",
    "SafetySteering_FitBenignAlignment",
    "SafetySteering_TransferDirection",
    "SafetySteering_CategoryMixer",
    "SafetySteering_ApplySafetySteering",
)
REPORTS = ("SafetySteering_SteeringReport", "SafetySteering_SafetyAB")
FILES = ("SaveVideo", "SaveImage")
TRACE = "safety_steering.trace"
SAFE = "SafetySteering_SafeModel"
FIVE = {recipe.name for recipe in RECIPES if recipe.five}
WINDOW, BARS = (1920, 1080), (60, 85)  # what the frontend keeps for itself, at the left and at the top
Prompt = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def page(browser: Browser, server: ComfyServer, request: pytest.FixtureRequest) -> Iterator[Page]:
    """One page for all of this file: opening the frontend takes longer than opening a workflow in it."""
    size = (2560, 1440) if request.config.getoption("--update-docs") else (1600, 900)
    with open_frontend(browser, server.address, *size) as opened:
        yield opened


@pytest.fixture(scope="module")
def definitions(server: ComfyServer) -> dict[str, Any]:
    return server.client.object_info()


def nodes_of(prompt: Prompt, *class_types: str) -> list[tuple[str, dict[str, Any]]]:
    return [(id_, node["inputs"]) for id_, node in prompt.items() if node["class_type"] in class_types]


def widgets_of(inputs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in inputs.items() if not isinstance(value, list)}


def sound_prompt(page: Page) -> Prompt:
    """What the open workflow sends, if nothing in it is red, missing or in the way of something else."""
    assert page.evaluate(NODE_PROBLEMS) == []
    assert page.evaluate(OVERLAPS) == []
    assert page.get_by_text("is missing").count() == 0
    assert toasts(page, "error").count() == 0
    return api_prompt(page)


def stands_apart_on_vue_nodes(page: Page, workflow: dict[str, Any], name: str, artifacts: Path) -> None:
    """Vue nodes are taller than the classic canvas draws them."""
    with vue_nodes(page):
        open_workflow(page, workflow, f"vue_{name}")
        assert drawn_overlaps(page) == []
        page.screenshot(path=artifacts / f"{name}_vue.png")


def executed(server: ComfyServer, prompt: Prompt, *statuses: str) -> None:
    """Run a prompt; each node that steers must have been at work in a run of the sampler, and a file must come out.

    statuses: what steering may say. The stand-in's states mean nothing, so a gate may find nothing in them.
    """
    run = server.client.run(prompt, timeout=180).succeeded()
    told = {event["data"]["node"]: event["data"]["status"] for event in run.events if event["type"] == TRACE}
    assert set(told) == {id_ for id_, _ in nodes_of(prompt, SAFE, CHAIN[-1])}
    assert set(told.values()) <= set(statuses)
    (saved,) = nodes_of(prompt, *FILES)
    assert server.output_file(run.outputs[saved[0]]["images"][0]).stat().st_size > 500


def only_sizes_and_stand_ins_differ(workflow: dict[str, Any], shipped: Prompt, tiny: Prompt) -> None:
    titles = {str(node["id"]): node.get("title", "") for node in every_node(workflow)}
    assert set(tiny) == set(shipped)
    for id_, node in tiny.items():
        if node["class_type"] in (STAND_IN_CLIP, STAND_IN_VISION):
            assert shipped[id_]["class_type"].endswith(("CLIPLoader", "TextEncoderLoader", "CLIPVisionLoader"))
        elif node != shipped[id_]:
            assert node["class_type"] == shipped[id_]["class_type"]
            assert titles[id_.rpartition(":")[2]] in SIZES or node["class_type"] in SIZES
            changed = {name for name, value in node["inputs"].items() if value != shipped[id_]["inputs"][name]}
            assert changed <= {"width", "height", "length", "steps", "value", "longer_edge"} | {
                name for name in changed if name.startswith("resize_type.")
            }


@pytest.mark.parametrize("name", PORTABLE)
def test_a_workflow_opens_and_what_it_sends_executes(
    page: Page, server: ComfyServer, definitions: dict[str, Any], artifacts: Path, name: str
) -> None:
    workflow = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
    open_template(page, PACK_FOLDER, name)
    picture_of_graph(page).save(artifacts / f"{name}_opened.png")
    shipped = sound_prompt(page)
    assert prompt_problems(shipped, definitions) == []
    assert all(bool(nodes_of(shipped, kind)) is (name in FIVE) for kind in CHAIN)
    for _, inputs in nodes_of(shipped, CHAIN[-1]):
        assert (inputs["settings"], inputs["settings.level"]) == ("recommended", 1)
    assert bool(nodes_of(shipped, SAFE)) is (name not in FIVE)
    for _, inputs in nodes_of(shipped, SAFE):
        assert widgets_of(inputs) == {"vector": "auto", "level": 1, "mix": ""}
    stands_apart_on_vue_nodes(page, workflow, name, artifacts)

    open_workflow(page, tiny_variant(workflow), f"tiny_{name}")
    tiny = sound_prompt(page)
    only_sizes_and_stand_ins_differ(workflow, shipped, tiny)
    executed(server, tiny, "acted", "nothing found")


@pytest.mark.parametrize("name", OTHERS)
def test_any_other_workflow_opens_from_the_template_browser(
    page: Page, definitions: dict[str, Any], artifacts: Path, name: str
) -> None:
    open_template(page, PACK_FOLDER, name)
    picture_of_graph(page).save(artifacts / f"{name}_opened.png")
    assert prompt_problems(sound_prompt(page), definitions) == []
    workflow = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
    stands_apart_on_vue_nodes(page, workflow, name, artifacts)


@pytest.mark.parametrize("path", OF_OLD, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_workflow_of_old_still_opens_and_executes(page: Page, server: ComfyServer, path: Path) -> None:
    workflow = json.loads(path.read_text(encoding="utf-8"))
    open_workflow(page, workflow, f"old_{path.stem}")
    assert page.evaluate(NODE_PROBLEMS) == []
    open_workflow(page, tiny_variant(workflow), f"old_tiny_{path.stem}")
    assert page.evaluate(NODE_PROBLEMS) == []
    executed(server, api_prompt(page), "acted")


@pytest.fixture(scope="module", params=MODES)
def one_screen(browser: Browser, server: ComfyServer, request: pytest.FixtureRequest) -> Iterator[Page]:
    opened = open_frontend(browser, server.address, *WINDOW)
    with opened as page, vue_nodes(page) if request.param == "vue" else nullcontext():
        yield page


@pytest.mark.parametrize("name", [name for name in PORTABLE if name not in FIVE])
def test_a_page_opens_whole_on_one_screen_and_no_wire_runs_behind_a_node(
    one_screen: Page, artifacts: Path, name: str
) -> None:
    one_screen.evaluate(LOAD, [json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8")), name])
    one_screen.wait_for_timeout(2000)
    mode = "vue" if one_screen.locator("[data-node-id]").count() else "classic"
    one_screen.screenshot(path=artifacts / f"{name}_one_screen_{mode}.png")
    assert one_screen.evaluate("app.canvas.ds.scale") == 1
    shown = one_screen.evaluate(GRAPH_BOUNDS)
    assert shown["x"] > BARS[0]
    assert shown["y"] > BARS[1]
    assert shown["x"] + shown["width"] < WINDOW[0]
    assert shown["y"] + shown["height"] < WINDOW[1]
    assert one_screen.evaluate(WIRES_BEHIND) == []


def test_a_broken_workflow_would_be_noticed(page: Page, definitions: dict[str, Any]) -> None:
    workflow = json.loads((WORKFLOWS / "advanced_wan21_t2v.json").read_text(encoding="utf-8"))
    loader, apply = (next(node for node in workflow["nodes"] if node["type"] == kind) for kind in (CHAIN[0], CHAIN[-1]))
    loader["widgets_values"] = ["nowhere.safetensors"]
    apply["type"] = "SafetySteering_NoSuchNode"
    apply["pos"] = loader["pos"]
    open_workflow(page, workflow, "broken")
    problems = " ".join(page.evaluate(NODE_PROBLEMS))
    assert "SafetySteering_NoSuchNode is unknown" in problems
    assert "vector = nowhere.safetensors is not on offer" in problems
    assert page.evaluate(OVERLAPS)
    assert any("nowhere.safetensors" in problem for problem in prompt_problems(api_prompt(page), definitions))
    assert page.evaluate(WIRES_BEHIND)
    with vue_nodes(page):
        assert drawn_overlaps(page)


@pytest.mark.both_frontends
def test_a_workflow_runs_from_the_run_button(page: Page, server: ComfyServer, artifacts: Path) -> None:
    name = "advanced_wan21_t2v"
    workflow = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
    open_workflow(page, tiny_variant(workflow), f"run_{name}")
    prompt = api_prompt(page)
    outputs = run_from_the_button(page)
    picture_of_graph(page).save(artifacts / f"{name}_run.png")

    ((report, _),) = nodes_of(prompt, REPORTS[0])
    said = outputs[report]["text"][0]
    assert "of their size in" in said or "Found nothing unsafe" in said
    assert server.output_file(outputs[report]["images"][0]).stat().st_size > 5_000
    ((video, _),) = nodes_of(prompt, "SaveVideo")
    assert server.output_file(outputs[video]["images"][0]).suffix == ".mp4"
    assert page.locator("video").count() == 1, "the result must be shown in the node"
    assert page.evaluate(OVERLAPS) == []
    with vue_nodes(page):
        assert drawn_overlaps(page) == []
        page.screenshot(path=artifacts / f"{name}_run_vue.png")
    assert toasts(page, "error").count() == 0
