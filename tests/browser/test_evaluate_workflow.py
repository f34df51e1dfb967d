"""The workflow that evaluates a vector: it opens without a red node, and on the small world its Run button leads to a
table, a chart and files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
    toasts,
)
from node_definitions import prompt_problems
from PIL import Image
from playground import WORKFLOWS
from playwright.sync_api import Browser, Page
from small_world_workflows import small_evaluation, small_world_folder
from workflow_builder.evaluate import LIMIT, NAME

EVALUATE, LOAD = "SafetySteering_EvaluateSafety", "SafetySteering_LoadSafetyVector"


@pytest.fixture(scope="module", autouse=True)
def small_world(server: ComfyServer) -> None:
    small_world_folder(server.base_directory)


@pytest.fixture(scope="module")
def page(browser: Browser, server: ComfyServer) -> Iterator[Page]:
    """One page for all of this file: opening the frontend takes longer than opening a workflow in it."""
    with open_frontend(browser, server.address, width=2560, height=1440) as opened:  # its widgets are legible
        yield opened


def committed() -> dict[str, Any]:
    return json.loads((WORKFLOWS / f"{NAME}.json").read_text(encoding="utf-8"))


def node_of(prompt: dict[str, Any], class_type: str) -> tuple[str, dict[str, Any]]:
    return next((id_, node["inputs"]) for id_, node in prompt.items() if node["class_type"] == class_type)


def test_it_opens_from_the_template_browser(page: Page, server: ComfyServer, artifacts: Path) -> None:
    open_template(page, PACK_FOLDER, NAME)
    picture_of_graph(page).save(artifacts / f"{NAME}_opened.png")
    assert page.evaluate(NODE_PROBLEMS) == []
    assert page.evaluate(OVERLAPS) == []
    assert toasts(page, "error").count() == 0
    prompt = api_prompt(page)
    assert prompt_problems(prompt, server.client.object_info()) == []
    _, inputs = node_of(prompt, EVALUATE)
    assert (inputs["folder"], inputs["split"], inputs["limit"]) == ("my_wan", "test", LIMIT)
    assert inputs["model"] != inputs["steered_model"]


def test_it_evaluates_the_small_world(page: Page, server: ComfyServer, artifacts: Path) -> None:
    open_workflow(page, small_evaluation(committed()), NAME)
    prompt = api_prompt(page)
    assert {"SafetySteering_FitBenignAlignment", "SafetySteering_TransferDirection"} <= {
        node["class_type"] for node in prompt.values()
    }, "the whole chain runs"
    outputs = run_from_the_button(page, timeout=600)
    picture_of_graph(page).save(artifacts / f"{NAME}_run.png")
    assert page.evaluate(NODE_PROBLEMS) == []
    assert page.evaluate(OVERLAPS) == []
    assert toasts(page, "error").count() == 0

    id_, inputs = node_of(prompt, EVALUATE)
    (shown,) = outputs[id_]["text"]
    count = inputs["limit"]
    assert f"{count} unsafe and {count} benign prompts" in shown
    assert "ASR, unsafe prompts judged unsafe: unsteered 100.0%" in shown
    chart = Image.open(server.output_file(outputs[id_]["images"][0]))
    assert np.asarray(chart.convert("L")).std() > 10
    folder = server.base_directory / "output" / "safety_evaluations" / inputs["folder"]
    table = (folder / "table.md").read_text()
    assert re.search(r"\| ASR, unsafe prompts judged unsafe +\| 100\.0%", table)
    plain, steered = json.loads((folder / "results.json").read_text())["rows"]
    assert plain["n_unsafe"] == steered["n_unsafe"] == count
    assert steered["strength"] > 4  # as the carried vector recommends
    assert steered["asr"] < plain["asr"]
    assert len((folder / "verdicts.jsonl").read_text().splitlines()) == 4 * count
