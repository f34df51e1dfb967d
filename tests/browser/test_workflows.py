"""Every shipped workflow opens in the real frontend without a red node, and its Run button leads to a shown result."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from comfy_server import PACK_FOLDER, ComfyServer
from frontend import (
    NODE_PROBLEMS,
    OVERLAPS,
    api_prompt,
    open_template,
    open_workflow,
    picture_of_graph,
    run_from_the_button,
)
from playground import WORKFLOWS, tiny_variant
from playwright.sync_api import Page

NAMES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
CHAIN = ("SafetySteering_LoadSafetyVector", "SafetySteering_ApplySafetySteering", "SafetySteering_SteeringReport")


def node_of(prompt: dict, class_type: str) -> tuple[str, dict]:
    return next((id_, node["inputs"]) for id_, node in prompt.items() if node["class_type"] == class_type)


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_opens_from_the_template_browser(page: Page, artifacts: Path, name: str) -> None:
    open_template(page, PACK_FOLDER, name)
    picture_of_graph(page).save(artifacts / f"{name}_opened.png")
    assert page.evaluate(NODE_PROBLEMS) == []
    assert page.evaluate(OVERLAPS) == []
    assert page.get_by_text("is missing").count() == 0
    assert page.locator(".p-toast-message-error").count() == 0
    prompt = api_prompt(page)
    _, apply = node_of(prompt, CHAIN[1])
    widgets = {key: value for key, value in apply.items() if not isinstance(value, list)}
    assert widgets == {
        "strength": 1,
        "intervention": "add",
        "norm": "token",
        "window_start": 0,
        "window_end": 0.5,
        "branch": "both",
        "gate": "off",
        "hook_points": "auto",
    }


def test_a_broken_workflow_would_be_noticed(page: Page) -> None:
    workflow = json.loads((WORKFLOWS / "wan21_t2v.json").read_text(encoding="utf-8"))
    loader, apply = (next(node for node in workflow["nodes"] if node["type"] == kind) for kind in CHAIN[:2])
    loader["widgets_values"] = ["nowhere.safetensors"]
    apply["type"] = "SafetySteering_NoSuchNode"
    apply["pos"] = loader["pos"]
    open_workflow(page, workflow, "broken")
    problems = " ".join(page.evaluate(NODE_PROBLEMS))
    assert "SafetySteering_NoSuchNode is unknown" in problems
    assert "vector = nowhere.safetensors is not on offer" in problems
    assert len(page.evaluate(OVERLAPS)) == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_runs_from_the_run_button(
    page: Page, server: ComfyServer, artifacts: Path, repo_root: Path, name: str, request: pytest.FixtureRequest
) -> None:
    workflow = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
    open_workflow(page, tiny_variant(workflow), name)
    prompt = api_prompt(page)
    outputs = run_from_the_button(page)
    picture = picture_of_graph(page)
    picture.save(artifacts / f"{name}_run.png")

    report_id, _ = node_of(prompt, CHAIN[2])
    assert "Acted on" in outputs[report_id]["text"][0]
    assert server.output_file(outputs[report_id]["images"][0]).stat().st_size > 5_000
    video_id, _ = node_of(prompt, "SaveVideo")
    assert server.output_file(outputs[video_id]["images"][0]).suffix == ".mp4"
    assert page.locator("video").count() == 1, "the result must be shown in the node"
    assert page.evaluate(OVERLAPS) == []
    assert page.locator(".p-toast-message-error").count() == 0

    if request.config.getoption("--update-docs"):
        picture.save(repo_root / "docs" / "images" / f"{name}.png", optimize=True)
        thumbnail = picture.copy()
        thumbnail.thumbnail((800, 800))
        thumbnail.save(WORKFLOWS / f"{name}.jpg", quality=80)
