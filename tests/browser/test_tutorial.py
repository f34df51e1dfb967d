"""The README's five minutes, step by step in the real frontend; with `--update-docs` also its screenshots.

The workflow is opened from the template browser as it ships. What runs is its small-world variant, so that the videos
show something without gigabytes of weights.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from comfy_server import PACK_FOLDER, ComfyServer
from frontend import NODE_PROBLEMS, api_prompt, fit_view, open_workflow, run_from_the_button
from panels import AB, APPLY, MIXER, opened, panel, sliders
from playground import WORKFLOWS
from playwright.sync_api import Browser, Locator, Page, expect
from small_world_workflows import small_comparison, small_world_folder

NAME = "compare_t2v"


@pytest.fixture(scope="module")
def ui(browser: Browser, server: ComfyServer) -> Iterator[Page]:
    small_world_folder(server.base_directory)
    server.client.free()  # what another test has sampled would be taken from the cache, and no run be seen
    with opened(browser, server.address, "vue") as page:
        yield page


@pytest.fixture(scope="module")
def pictures(repo_root: Path, artifacts: Path, request: pytest.FixtureRequest) -> Path:
    """Where the screenshots go."""
    return repo_root / "docs" / "images" if request.config.getoption("--update-docs") else artifacts


def node(page: Page, kind: str) -> Locator:
    """The drawn node of a type, in the middle of the window."""
    node_id = page.evaluate("kind => app.graph.nodes.find(node => node.type === kind).id", kind)
    page.evaluate(
        """id => { const { pos, size } = app.graph.getNodeById(id), view = app.canvas.canvas.getBoundingClientRect();
            app.canvas.ds.scale = 0.85;
            app.canvas.ds.offset = [view.width / 1.7 - pos[0] - size[0] / 2, 130 - pos[1]];
            app.canvas.setDirty(true, true); }""",
        node_id,
    )
    page.wait_for_timeout(500)
    return page.locator(f"[data-node-id='{node_id}']")


def test_step_1_the_template_browser_offers_the_comparison(ui: Page, pictures: Path) -> None:
    ui.get_by_role("button", name="Templates").first.click()
    ui.get_by_text(PACK_FOLDER).click()
    card = ui.get_by_test_id(f"template-workflow-{NAME}")
    card.scroll_into_view_if_needed()
    expect(card.locator("img").first).to_be_visible()
    ui.wait_for_timeout(2000)  # the other thumbnails fade in
    ui.screenshot(path=pictures / "tutorial_templates.png")
    card.click()
    ui.wait_for_function("name => app.extensionManager.workflow.activeWorkflow?.filename === name", arg=NAME)
    assert ui.evaluate(NODE_PROBLEMS) == []


def test_step_2_one_run_shows_both_sides(ui: Page, pictures: Path) -> None:
    workflow = json.loads((WORKFLOWS / f"{NAME}.json").read_text(encoding="utf-8"))
    open_workflow(ui, small_comparison(workflow), NAME)
    run_from_the_button(ui, timeout=300)
    fit_view(ui)
    ui.screenshot(path=pictures / "tutorial_run.png")
    comparer = panel(ui, "Unsteered and steered")
    expect(comparer.locator("canvas")).to_have_count(2)
    expect(comparer.get_by_text("unsteered", exact=True)).to_be_visible()
    node(ui, AB).screenshot(path=pictures / "tutorial_compare.png")


def test_step_3_the_level_is_the_first_thing_to_move(ui: Page, pictures: Path) -> None:
    apply = node(ui, APPLY)
    expect(panel(ui, "Steering").get_by_text("in 16 of 16 steps")).to_be_visible()
    apply.screenshot(path=pictures / "tutorial_strength.png")


def test_step_4_the_sliders_of_the_mixer_follow(ui: Page, pictures: Path) -> None:
    mixer = node(ui, MIXER)
    assert sliders(ui).count() >= 3
    sliders(ui).nth(0).focus()
    ui.keyboard.press("End")
    mixer.screenshot(path=pictures / "tutorial_mixer.png")
    (sent,) = [one["inputs"] for one in api_prompt(ui).values() if one["class_type"] == MIXER]
    assert sent["preset"] == "custom"
    assert "=2" in sent["mix"]
