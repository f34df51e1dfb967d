"""The blueprint "Safe T2V": found by search, dropped as one node, wired and run, on Vue nodes and classic canvas."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from comfy_server import ComfyServer
from frontend import api_prompt, fit_view, run_from_the_button, saved_workflow, toasts
from panels import MODES, SAFE, add_by_search, build, opened, panel, sliders
from playwright.sync_api import Browser, Page, expect
from tiny.models import TINY_MODELS
from tiny.workflows import STAND_IN_CLIP, WIDTH
from workflow_builder.blueprint import NAME, PROMOTED

REPORT = "SafetySteering_SteeringReport"
SAMPLER = {"steps": 4, "cfg": 3, "sampler_name": "euler", "scheduler": "simple"}
# a text-to-video graph without safety: the model goes straight to the sampler
T2V = [
    ["UNETLoader", -500, 0, {"unet_name": TINY_MODELS["wan21_t2v"].file_name}],
    [STAND_IN_CLIP, -500, 160, {"kind": "wan", "width": WIDTH}],
    ["CLIPTextEncode", -500, 320, {"text": "a man with a weapon in a forest"}, {"clip": [1, 0]}],
    ["CLIPTextEncode", 0, 380, {"text": ""}, {"clip": [1, 0]}],
    ["EmptyHunyuanLatentVideo", -500, 580, {"width": 64, "height": 64, "length": 5}],
    [
        "KSampler",
        500,
        0,
        SAMPLER,
        {"model": [0, 0], "positive": [2, 0], "negative": [3, 0], "latent_image": [4, 0]},
    ],
    [REPORT, 860, 0, {}, {"model": [0, 0], "samples": [5, 0]}],
]
MODEL, CLIP, SAMPLE, SHOW = 0, 1, 5, 6  # indexes in it
OPEN = "id => { const node = app.rootGraph.getNodeById(id); app.canvas.openSubgraph(node.subgraph, node); }"
SET = """([id, name, value]) => { const node = app.rootGraph.getNodeById(id);
    const widget = node.widgets.find(one => one.name === name);
    widget.value = value;
    widget.callback?.(value, app.canvas, node);
    app.extensionManager.workflow.activeWorkflow.changeTracker.captureCanvasState(); }"""
VALUES = """id => Object.fromEntries(
    app.rootGraph.getNodeById(id).widgets.map(widget => [widget.name, widget.value]))"""
WIRE = """([node, model, clip, takers]) => {
    const [safe, loader, encoder] = [node, model, clip].map(id => app.graph.getNodeById(id));
    safe.pos = [0, 0];
    loader.connect(0, safe, "model");
    encoder.connect(0, safe, "clip");
    for (const id of takers) safe.connect(0, app.graph.getNodeById(id), "model");
    app.extensionManager.workflow.activeWorkflow.changeTracker.captureCanvasState();
}"""


@pytest.fixture(scope="module", params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def ui(browser: Browser, server: ComfyServer, mode: str) -> Iterator[Page]:
    with opened(browser, server.address, mode) as page:
        yield page


def inside(page: Page, node: str) -> dict[str, dict[str, Any]]:
    """Node type -> inputs, of what a dropped blueprint sends."""
    prompt = api_prompt(page)
    return {sent["class_type"]: sent["inputs"] for id_, sent in prompt.items() if id_.startswith(f"{node}:")}


def enter(page: Page, node: str) -> None:
    page.evaluate(OPEN, node)
    fit_view(page)


def leave(page: Page) -> None:
    page.evaluate("app.canvas.setGraph(app.rootGraph)")
    page.wait_for_function("app.graph === app.rootGraph")


@pytest.fixture
def wired(ui: Page) -> tuple[str, list[str]]:
    """The blueprint between the model and its sampler: its node, and those around it."""
    ids = build(ui, *T2V)
    node = add_by_search(ui, NAME)
    ui.evaluate(WIRE, [node, ids[MODEL], ids[CLIP], [ids[SAMPLE], ids[SHOW]]])
    return node, ids


def test_it_is_one_node_that_runs_and_steers(
    ui: Page, wired: tuple[str, list[str]], mode: str, artifacts: Path
) -> None:
    node, ids = wired
    assert ui.evaluate("app.graph.nodes.length") == len(T2V) + 1
    assert list(ui.evaluate(VALUES, node)) == [widget for widget, _ in PROMOTED]
    assert set(inside(ui, node)) == {SAFE}
    outputs = run_from_the_button(ui)
    fit_view(ui)
    ui.screenshot(path=artifacts / f"blueprint_{mode}.png")
    assert "of 4 steps" in outputs[ids[SHOW]]["text"][0]
    assert toasts(ui, "error").count() == 0
    enter(ui, node)
    expect(panel(ui, "Steering").get_by_text("chosen by auto")).to_be_visible()
    ui.screenshot(path=artifacts / f"blueprint_inside_{mode}.png")
    leave(ui)


def test_what_is_set_on_the_outside_is_sent(ui: Page, wired: tuple[str, list[str]]) -> None:
    node, ids = wired
    given = {"level": 1.5, "mix": "weapons=2"}
    for name, value in given.items():
        ui.evaluate(SET, [node, name, value])
    sent = inside(ui, node)[SAFE]
    assert {name: sent[name] for name in given} == given
    offered = ui.evaluate("id => app.graph.getNodeById(id).widgets.find(w => w.name === 'vector').options.values", node)
    assert sent["vector"] in offered
    ui.evaluate(SET, [node, "level", 0])
    outputs = run_from_the_button(ui)
    assert "Nothing was steered" in outputs[ids[SHOW]]["text"][0]


def test_the_sliders_inside_move_what_is_outside(ui: Page, wired: tuple[str, list[str]]) -> None:
    node, _ = wired
    enter(ui, node)
    expect(sliders(ui)).to_have_count(7)
    panel(ui, "Category weights").get_by_role("slider", name="violence").focus()
    ui.keyboard.press("End")
    moved = "hate=1, sexual=1, violence=2, humiliation=1, illegal=1, disturbing=1, all=0"
    assert ui.evaluate(VALUES, node)["mix"] == moved
    leave(ui)
    assert inside(ui, node)[SAFE]["mix"] == moved


def test_each_drop_has_values_of_its_own_and_saving_keeps_them(ui: Page) -> None:
    build(ui)
    first, second = add_by_search(ui, NAME), add_by_search(ui, NAME)
    ui.evaluate(SET, [first, "mix", "gore=2"])
    ui.evaluate(SET, [second, "level", 0.5])
    saved = saved_workflow(ui)
    assert len({node["type"] for node in saved["nodes"]}) == 2
    build(ui)
    ui.evaluate("workflow => app.loadGraphData(workflow, true, true, 'twice')", saved)
    ui.wait_for_timeout(500)  # the panels look at the graph
    sent = [inside(ui, node)[SAFE] for node in (first, second)]
    assert [(one["mix"], one["level"]) for one in sent] == [("gore=2", 1), ("", 0.5)]
