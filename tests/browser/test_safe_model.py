"""Safe Model in the browser: its sliders and report, and what "Open as nodes" makes of it, on both kinds of nodes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from comfy_server import ComfyServer
from frontend import api_prompt, run_from_the_button, wait_until_ready
from panels import APPLY, LOADER, MIXER, MODES, SAFE, build, opened, panel, sliders, widgets
from playwright.sync_api import Browser, Page, expect
from tiny.models import TINY_MODELS
from tiny.workflows import STAND_IN_CLIP, WIDTH
from workflow_builder.build import VECTOR

FIT, TRANSFER, REPORT = (
    f"SafetySteering_{name}" for name in ("FitBenignAlignment", "TransferDirection", "SteeringReport")
)
SAMPLER = {"seed": 5, "control_after_generate": "fixed", "steps": 4, "cfg": 3, "sampler_name": "euler"}
GRAPH = [
    ["UNETLoader", -500, 0, {"unet_name": TINY_MODELS["wan21_t2v"].file_name}],
    [STAND_IN_CLIP, -500, 160, {"kind": "wan", "width": WIDTH}],
    [SAFE, 0, 0, {"level": 0.5, "mix": "violence=1.5"}, {"model": [0, 0], "clip": [1, 0]}],
    ["CLIPTextEncode", -500, 320, {"text": "a man with a weapon in a forest"}, {"clip": [2, 1]}],
    ["CLIPTextEncode", -500, 580, {"text": ""}, {"clip": [1, 0]}],
    ["EmptyHunyuanLatentVideo", -500, 840, {"width": 64, "height": 64, "length": 5}],
    ["KSampler", 500, 0, SAMPLER, {"model": [2, 0], "positive": [3, 0], "negative": [4, 0], "latent_image": [5, 0]}],
    [REPORT, 860, 0, {}, {"model": [2, 0], "samples": [6, 0]}],
]
# what this pack's scripts read and the frontend calls deprecated
WATCH = """() => { window.deprecated = [];
    LiteGraph.alwaysRepeatWarnings = true;
    LiteGraph.onDeprecationWarning.push(message => {
        if (new Error().stack.includes("/extensions/")) window.deprecated.push(message);
    }); }"""
OPEN = """() => { const node = app.graph.nodes.find(node => node.type === "SafetySteering_SafeModel");
    return app.canvas.getNodeMenuOptions(node).find(option => option?.content === "Open as nodes").callback(); }"""


@pytest.fixture(scope="module", params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def ui(browser: Browser, server: ComfyServer, mode: str) -> Iterator[Page]:
    with opened(browser, server.address, mode) as page:
        yield page


def safe_graph(page: Page, vector: str) -> list[str]:
    (label,) = page.evaluate(
        """([type, name]) => [LiteGraph.createNode(type).widgets.find(widget => widget.name === "vector")
            .options.values.find(value => value.startsWith(name))]""",
        [SAFE, vector],
    )
    return build(page, *GRAPH[:2], [SAFE, 0, 0, {**GRAPH[2][3], "vector": label}, GRAPH[2][4]], *GRAPH[3:])


def test_sliders_write_the_mix_and_a_run_says_what_was_chosen(ui: Page, mode: str, artifacts: Path) -> None:
    safe_graph(ui, VECTOR.name)
    expect(sliders(ui)).to_have_count(7)
    expect(sliders(ui).nth(2)).to_have_attribute("aria-valuenow", "1.5")
    expect(panel(ui, "Steering").get_by_text("A run shows which vector")).to_be_visible()
    sliders(ui).nth(0).focus()
    ui.keyboard.press("Home")
    (found,) = widgets(ui, SAFE)
    assert found["mix"].startswith("hate=0, sexual=1, violence=1.5")
    run_from_the_button(ui)
    strip = panel(ui, "Steering")
    expect(strip.get_by_text(f"{VECTOR.name}: chosen by you.")).to_be_visible()
    expect(strip.get_by_text("Settings: clamp at the prompt, strength")).to_be_visible()
    expect(strip.locator(".ss-happened")).to_have_count(1)
    ui.screenshot(path=artifacts / f"safe_model_{mode}.png")


def test_a_page_that_was_not_there_is_told_what_the_run_in_the_cache_chose(ui: Page, mode: str) -> None:
    safe_graph(ui, VECTOR.name)
    run_from_the_button(ui)
    ui.wait_for_timeout(1000)  # the frontend writes its draft
    ui.reload()
    wait_until_ready(ui)
    strip = panel(ui, "Steering")
    expect(strip.get_by_text("A run shows which vector")).to_be_visible()
    run_from_the_button(ui)
    expect(strip.get_by_text("Nothing ran anew")).to_be_visible()
    expect(strip.get_by_text(f"{VECTOR.name}: chosen by you.")).to_be_visible()


@pytest.mark.both_frontends
def test_nothing_deprecated_is_read(ui: Page) -> None:
    ui.evaluate(WATCH)
    safe_graph(ui, "wan_t2v_demo.safetensors")
    expect(panel(ui, "Steering")).to_be_visible()
    ui.evaluate(OPEN)  # its end lets every panel look at the graph
    assert [node["vector"] for node in widgets(ui, LOADER)]
    assert ui.evaluate("window.deprecated") == []


@pytest.mark.parametrize(("vector", "fitted"), [(VECTOR.name, True), ("wan_t2v_demo.safetensors", False)])
def test_open_as_nodes_gives_the_five_with_the_same_values_and_result(
    ui: Page, mode: str, vector: str, fitted: bool
) -> None:
    ids = safe_graph(ui, vector)
    if not fitted:
        ui.evaluate(
            "id => { app.graph.getNodeById(id).widgets.find(w => w.name === 'mix').value = 'weapons=1.5' }", ids[2]
        )
    one = run_from_the_button(ui)[ids[7]]["text"]
    ui.evaluate(OPEN)
    ui.wait_for_function("type => !app.graph.nodes.some(node => node.type === type)", arg=SAFE)
    prompt = api_prompt(ui)
    sent = {node["class_type"]: node["inputs"] for node in prompt.values()}
    assert SAFE not in sent
    assert ({FIT, TRANSFER} <= set(sent)) is fitted
    assert sent[LOADER]["vector"].startswith(vector)
    assert sent[MIXER]["mix"] == ("violence=1.5" if fitted else "weapons=1.5")
    assert (sent[APPLY]["settings"], sent[APPLY]["settings.level"]) == ("recommended", 0.5)
    (apply,) = [number for number, node in prompt.items() if node["class_type"] == APPLY]
    assert sent[APPLY]["clip"] == [ids[1], 0]
    read = [node["inputs"]["clip"] for node in prompt.values() if node["class_type"] == "CLIPTextEncode"]
    assert sorted(read) == sorted([[apply, 1], [ids[1], 0]])  # as they were wired: by Safe Model's, and by the loader's
    assert run_from_the_button(ui)[ids[7]]["text"] == one
