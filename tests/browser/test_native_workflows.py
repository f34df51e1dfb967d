"""The workflows of native steering: each opens without a red node, and on the small world its Run button leads to a
result that a judge can look at."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from comfy_server import PACK_FOLDER, ComfyServer
from frontend import (
    NODE_PROBLEMS,
    OVERLAPS,
    api_prompt,
    open_frontend,
    open_template,
    open_workflow,
    picture_of_graph,
    run_from_the_button,
)
from native_graphs import PAGES, TITLES
from PIL import Image
from playground import WORKFLOWS
from playwright.sync_api import Browser, Page
from run_thumbnail import run_thumbnail
from small_world_workflows import small_world_folder, small_world_variant

CALIBRATE, SAVE = "SafetySteering_CalibrateSteering", "SafetySteering_SaveSafetyVector"
FIT = "SafetySteering_FitSafetyDirection"


@pytest.fixture
def page(browser: Browser, server: ComfyServer) -> Iterator[Page]:
    """The frontend in a window that shows a whole workflow, with patience: these are large."""
    with open_frontend(browser, server.address, 2560, 1440) as opened:
        yield opened


@pytest.fixture(scope="module", autouse=True)
def small_world(server: ComfyServer) -> None:
    small_world_folder(server.base_directory)


def node_of(prompt: dict, class_type: str) -> tuple[str, dict]:
    return next((id_, node["inputs"]) for id_, node in prompt.items() if node["class_type"] == class_type)


def committed(name: str) -> dict:
    return json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", PAGES)
def test_the_file_is_what_its_builder_makes(name: str) -> None:
    assert committed(name) == PAGES[name]().workflow()


@pytest.mark.parametrize("name", PAGES)
def test_a_workflow_opens_from_the_template_browser(
    page: Page, server: ComfyServer, artifacts: Path, name: str
) -> None:
    open_template(page, PACK_FOLDER, name)
    picture_of_graph(page).save(artifacts / f"{name}_opened.png")
    assert page.evaluate(NODE_PROBLEMS) == []
    assert page.evaluate(OVERLAPS) == []
    assert page.locator(".p-toast-message-error").count() == 0
    definitions = server.client.object_info()
    for node in api_prompt(page).values():  # every widget has the kind of value that the server takes
        known = definitions[node["class_type"]]["input"]
        named = {**known.get("required", {}), **known.get("optional", {})}
        for widget, value in node["inputs"].items():
            kind = named.get(widget, [None])[0]
            if kind in ("INT", "FLOAT"):
                assert isinstance(value, int | float), (node["class_type"], widget, value)
            if kind == "BOOLEAN":
                assert isinstance(value, bool), (node["class_type"], widget, value)


@pytest.mark.parametrize("name", PAGES)
def test_a_workflow_runs_on_the_small_world(
    page: Page, server: ComfyServer, artifacts: Path, name: str, request: pytest.FixtureRequest
) -> None:
    open_workflow(page, small_world_variant(committed(name)), name)
    prompt = api_prompt(page)
    outputs = run_from_the_button(page, timeout=400)
    picture = picture_of_graph(page)
    picture.save(artifacts / f"{name}_run.png")
    assert page.evaluate(NODE_PROBLEMS) == []
    assert page.evaluate(OVERLAPS) == []
    assert page.locator(".p-toast-message-error").count() == 0

    saved, inputs = node_of(prompt, SAVE)
    assert f"Saved {inputs['filename']}.safetensors" in outputs[saved]["text"][0]
    if CALIBRATE in [node["class_type"] for node in prompt.values()]:
        shown = outputs[node_of(prompt, CALIBRATE)[0]]
        assert "Suggested for Apply: strength" in shown["text"][0]
        assert "measured on: " in outputs[saved]["text"][0]
        assert len(shown["images"]) == 2
        for entry in shown["images"]:
            assert np.asarray(Image.open(server.output_file(entry)).convert("L")).std() > 10
    else:
        report, _ = node_of(prompt, "SafetySteering_SteeringReport")
        assert "Acted on" in outputs[report]["text"][0]
        assert page.locator("video").count() == 1, "the result must be shown in the node"

    if request.config.getoption("--update-docs"):
        drawn, _ = node_of(prompt, CALIBRATE if name == "calibrate_on_my_model" else FIT)
        shown = [Image.open(server.output_file(entry)) for entry in outputs[drawn]["images"]]
        if drawn == node_of(prompt, FIT)[0]:
            shown.append(Image.open(io.BytesIO(page.locator("video").screenshot())))
        run_thumbnail(*TITLES[name], shown).save(WORKFLOWS / f"{name}.jpg", quality=88, optimize=True)
