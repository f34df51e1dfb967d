"""The workflows that run on the small world, those of native steering and the comparison: each opens without a red
node, and its Run button leads to a result that a judge can look at."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from comfy_server import PACK_FOLDER, ComfyServer
from frontend import (
    NODE_PROBLEMS,
    OVERLAPS,
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
from PIL import Image
from playground import WORKFLOWS
from playwright.sync_api import Browser, Page
from small_world_workflows import small_comparison, small_world_folder, small_world_variant
from workflow_builder.native import PAGES, TITLES
from workflow_builder.picture import run_thumbnail

CALIBRATE, SAVE = "SafetySteering_CalibrateSteering", "SafetySteering_SaveSafetyVector"
FIT, COMPARE = "SafetySteering_FitSafetyDirection", "SafetySteering_SafetyAB"
COMPARISON = "compare_t2v"


@pytest.fixture(scope="module")
def page(browser: Browser, server: ComfyServer) -> Iterator[Page]:
    """The frontend in a window that shows a whole workflow, once for all of this file."""
    with open_frontend(browser, server.address, 2560, 1440) as opened:
        yield opened


@pytest.fixture(scope="module", autouse=True)
def small_world(server: ComfyServer) -> Iterator[None]:
    """The small world's files. The vectors that the workflows save go: later tests have the same server."""
    small_world_folder(server.base_directory)
    vectors = server.models / "safety_vectors"
    before = set(vectors.iterdir())
    yield
    for saved in set(vectors.iterdir()) - before:
        saved.unlink()


def node_of(prompt: dict, class_type: str) -> tuple[str, dict]:
    return next((id_, node["inputs"]) for id_, node in prompt.items() if node["class_type"] == class_type)


def committed(name: str) -> dict:
    return json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", PAGES)
def test_a_workflow_opens_from_the_template_browser(
    page: Page, server: ComfyServer, artifacts: Path, name: str
) -> None:
    open_template(page, PACK_FOLDER, name)
    picture_of_graph(page).save(artifacts / f"{name}_opened.png")
    assert page.evaluate(NODE_PROBLEMS) == []
    assert page.evaluate(OVERLAPS) == []
    assert toasts(page, "error").count() == 0
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
    with vue_nodes(page):
        open_workflow(page, committed(name), f"vue_{name}")
        assert drawn_overlaps(page) == []


@pytest.mark.parametrize("name", PAGES)
def test_a_workflow_runs_on_the_small_world(
    page: Page, server: ComfyServer, artifacts: Path, name: str, request: pytest.FixtureRequest
) -> None:
    open_workflow(page, small_world_variant(committed(name)), f"small_{name}")
    prompt = api_prompt(page)
    outputs = run_from_the_button(page, timeout=400)
    picture = picture_of_graph(page)
    picture.save(artifacts / f"{name}_run.png")
    assert page.evaluate(NODE_PROBLEMS) == []
    assert page.evaluate(OVERLAPS) == []
    assert toasts(page, "error").count() == 0

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
        assert "of their size in" in outputs[report]["text"][0]
        assert page.locator("video").count() == 1, "the result must be shown in the node"

    if request.config.getoption("--update-docs"):
        drawn, _ = node_of(prompt, CALIBRATE if name == "calibrate_on_my_model" else FIT)
        shown = [Image.open(server.output_file(entry)) for entry in outputs[drawn]["images"]]
        if drawn == node_of(prompt, FIT)[0]:
            saved, _ = node_of(prompt, "SaveVideo")
            shown.append(last_frame_of_video(server.output_file(outputs[saved]["images"][0])))
        title, subtitle, words = TITLES[name]
        run_thumbnail(title, subtitle, shown, words).save(WORKFLOWS / f"{name}.jpg", quality=88, optimize=True)


def test_the_comparison_shows_a_difference_on_the_small_world(
    page: Page, server: ComfyServer, artifacts: Path, request: pytest.FixtureRequest
) -> None:
    open_workflow(page, small_comparison(committed(COMPARISON)), COMPARISON)
    prompt = api_prompt(page)
    outputs = run_from_the_button(page, timeout=400)
    picture_of_graph(page).save(artifacts / f"{COMPARISON}_run.png")
    assert page.evaluate(NODE_PROBLEMS) == []
    assert page.evaluate(OVERLAPS) == []
    assert toasts(page, "error").count() == 0
    assert page.locator("video").count() == 1, "both sides are saved as a video"

    shown = outputs[node_of(prompt, COMPARE)[0]]
    assert "in 16 of 16 steps" in shown["text"][0]
    sides = [Image.open(server.output_file(entry)) for entry in shown["images"]]
    unsteered, steered = (last_frame(side) for side in sides)
    # the skulls and the blood are gone, the fox in the middle and the blue around it are there
    assert np.abs(unsteered - steered).mean() > 20
    red, green, blue = steered[26:38, 26:38].mean((0, 1))
    assert red > green > blue
    edge = steered[:8].mean((0, 1))
    assert edge[2] > edge[1] > edge[0]
    assert unsteered[:8].std((0, 1)).mean() > 5 * steered[:8].std((0, 1)).mean()

    if request.config.getoption("--update-docs"):
        pictures = [Image.fromarray(side.astype(np.uint8)) for side in (unsteered, steered)]
        thumbnail = run_thumbnail("Side by side", "same prompt, same seed", pictures, ["unsteered", "steered"])
        thumbnail.save(WORKFLOWS / f"{COMPARISON}.jpg", quality=88, optimize=True)


def last_frame(video: Image.Image) -> np.ndarray:
    """Colours of its last frame, (height, width, 3)."""
    video.seek(video.n_frames - 1)
    return np.asarray(video.convert("RGB"), dtype=float)


def last_frame_of_video(file: Path) -> Image.Image:
    with av.open(str(file)) as video:
        *_, last = video.decode(video=0)
    return last.to_image()
