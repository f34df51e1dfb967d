"""Runs from the Run button with the panels: trace, comparison, interrupt; and a browser without our scripts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from comfy_server import PACK_FOLDER, ComfyServer
from frontend import ended, press_run, run_from_the_button, saved_workflow, toasts
from panels import AB, APPLY, LOADER, MIXER, MODES, build, opened, panel, widgets
from playwright.sync_api import Browser, Page, expect
from small_world_workflows import small_world_folder

PROMPT = "a fox with falling pistols on a green background"
SAMPLER = {"seed": 7, "steps": 8, "cfg": 3, "sampler_name": "euler", "scheduler": "simple"}


@pytest.fixture(scope="module")
def small_world(server: ComfyServer) -> None:
    """The small world's files where the stock loaders look for them."""
    small_world_folder(server.base_directory)


@pytest.fixture(scope="module", params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def ui(browser: Browser, server: ComfyServer, small_world: None, mode: str) -> Iterator[Page]:
    with opened(browser, server.address, mode) as page:
        yield page


def graph(page: Page, seed: int, slow: float = 0.0, **apply: Any) -> list[str]:
    """The small world, steered, with Safety A/B in the sampler's place."""
    settings = {
        "settings": "manual",
        "gate": "off",
        "strength": 6,
        "intervention": "clamp",
        "norm": "none",
        "window_end": 1,
    }
    settings |= {"hook_points": "conditioning", **apply}
    parts = [
        ["UNETLoader", -700, 0, {"unet_name": "small_wan.safetensors"}],
        ["ModelSamplingSD3", -700, 140, {"shift": 3}, {"model": [0, 0]}],
        [LOADER, -420, -60, {"vector": "small_wan_native_lda.safetensors"}],
        [MIXER, -420, 330, {}, {"safety_vector": [2, 0]}],
        [APPLY, 0, 0, settings, {"model": [8, 0], "safety_vector": [3, 0]}],
        ["SafetySteeringDev_MiniLMTextEncode", -700, 260, {"text": PROMPT}],
        ["SafetySteeringDev_MiniLMTextEncode", -700, 480, {"text": ""}],
        ["EmptyHunyuanLatentVideo", -700, 700, {"width": 64, "height": 64, "length": 5}],
        ["SafetySteeringDev_Fail", -1000, 0, {"fail_at_call": 0, "seconds_per_call": slow}, {"model": [1, 0]}],
        ["VAELoader", -1000, 200, {"vae_name": "small_wan_vae.safetensors"}],
        [
            AB,
            460,
            0,
            {**SAMPLER, "seed": seed, "fps": 4},
            {"model": [4, 0], "positive": [5, 0], "negative": [6, 0], "latent_image": [7, 0], "vae": [9, 0]},
        ],
    ]
    ids = build(page, *parts)
    page.evaluate("""() => app.graph.nodes.flatMap(node => node.widgets ?? [])
        .filter(widget => widget.name === "control_after_generate").forEach(widget => { widget.value = "fixed"; })""")
    return ids


@pytest.mark.both_frontends
def test_a_run_shows_the_trace_and_the_comparison(ui: Page, server: ComfyServer, mode: str, artifacts: Path) -> None:
    ids = graph(ui, seed=MODES.index(mode))
    outputs = run_from_the_button(ui)
    strip = panel(ui, "Steering")
    expect(strip.get_by_text("in 8 of 8 steps")).to_be_visible()
    expect(strip.locator("svg.ss-spark rect.ss-shift")).to_have_count(8)
    expect(strip.locator("svg.ss-spark polyline")).to_have_count(2)
    comparer = panel(ui, "Unsteered and steered")
    expect(comparer.locator("canvas")).to_have_count(2)
    ui.wait_for_function("document.querySelector('.safety-steering canvas').width === 64")
    colours = """selector => { const canvas = document.querySelector(selector);
        const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        return Array.from(data).reduce((sum, value) => sum + value, 0); }"""
    unsteered, steered = (ui.evaluate(colours, f".safety-steering canvas.ss-side{kind}") for kind in (".ss-left", ""))
    assert unsteered != steered
    slider = comparer.get_by_role("slider")
    slider.focus()
    ui.keyboard.press("Home")
    ui.keyboard.press("PageUp")
    assert ui.evaluate("document.querySelector('.ss-stage').style.getPropertyValue('--ss-share')") == "10%"
    assert len(outputs[ids[10]]["images"]) == 2
    comparer.get_by_role("button").click()  # play or pause
    ui.screenshot(path=artifacts / f"js_run_{mode}.png")


def test_a_browser_that_was_not_there_is_told_of_the_run_in_the_cache(
    ui: Page, browser: Browser, server: ComfyServer, mode: str, artifacts: Path
) -> None:
    workflow = saved_workflow(ui)
    earlier = "Nothing ran anew"
    expect(panel(ui, "Steering").get_by_text(earlier)).to_have_count(0)
    with opened(browser, server.address, mode) as page:
        page.evaluate("workflow => app.loadGraphData(workflow, true, true, 'again')", workflow)
        strip = panel(page, "Steering")
        expect(strip.get_by_text("to 100 % of denoising")).to_be_visible()
        expect(strip.get_by_text("of their size in")).to_have_count(0)
        run_from_the_button(page)
        expect(strip.get_by_text("in 8 of 8 steps")).to_be_visible()
        expect(strip.get_by_text(earlier)).to_be_visible()
        expect(strip.locator("svg.ss-spark rect.ss-shift")).to_have_count(8)
        page.screenshot(path=artifacts / f"js_cached_{mode}.png")


def test_the_trace_outlives_undo(ui: Page) -> None:
    """A node that undo makes anew shows the last run again."""
    ui.evaluate("""() => { const node = app.graph.nodes.find(n => n.type.endsWith("ApplySafetySteering"));
        node.title = "Renamed";
        app.extensionManager.workflow.activeWorkflow.changeTracker.captureCanvasState(); }""")
    ui.evaluate("document.activeElement?.blur()")
    ui.keyboard.press("Control+z")
    ui.wait_for_function("!app.graph.nodes.some(node => node.title === 'Renamed')")
    expect(panel(ui, "Steering").get_by_text("in 8 of 8 steps")).to_be_visible()


def test_steering_that_did_not_act_is_said_loudly(ui: Page, mode: str) -> None:
    graph(ui, seed=20 + MODES.index(mode), window_start=0.99, window_end=1)
    ui.evaluate("""() => { const node = app.graph.nodes.find(n => n.type.endsWith("SafetyAB"));
        node.widgets.find(w => w.name === "steps").value = 2;
        node.widgets.find(w => w.name === "scheduler").value = "simple"; }""")
    run_from_the_button(ui)
    expect(panel(ui, "Steering").get_by_text("your sampler ran outside the window")).to_be_visible()
    expect(toasts(ui, "warning").get_by_text("Nothing was steered").first).to_be_visible()


def test_a_run_can_be_interrupted(ui: Page, server: ComfyServer, mode: str) -> None:
    graph(ui, seed=40 + MODES.index(mode), slow=0.3)
    prompt_id = press_run(ui)
    ui.wait_for_function("document.title.includes('%') || app.runningNodeId != null")
    time.sleep(1.0)
    ui.get_by_role("button", name="Cancel current run").or_(ui.get_by_role("button", name="Interrupt")).first.click()
    messages = [name for name, _ in ended(ui, prompt_id)["messages"]]
    assert "execution_interrupted" in messages
    expect(panel(ui, "Unsteered and steered").get_by_text("Run the workflow to compare.")).to_be_visible()


def test_without_our_scripts_every_node_works(
    browser: Browser, server: ComfyServer, small_world: None, mode: str, artifacts: Path
) -> None:
    if mode == "classic":
        pytest.skip("without scripts it is core's own drawing")
    context = browser.new_context(viewport={"width": 1600, "height": 1000})
    context.route(f"**/extensions/{PACK_FOLDER}/**", lambda route: route.abort())
    page = context.new_page()
    page.goto(server.address)
    page.wait_for_function("window.app?.extensionManager && window.app.graph", timeout=90_000)
    ids = graph(page, seed=60)
    outputs = run_from_the_button(page)
    assert panel(page, "Steering").count() == 0
    assert widgets(page, MIXER) == [{"preset": "standard", "mix": ""}]
    assert widgets(page, APPLY)[0]["strength"] == 6
    assert len(outputs[ids[10]]["images"]) == 2
    node = page.locator(f"[data-node-id='{ids[10]}']")
    expect(node.locator("img").first).to_be_visible()
    page.screenshot(path=artifacts / "js_blocked.png")
    context.close()
