"""ComfyUI's own templates, and this pack's workflows, through a guarded server's admission."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

import pytest

# What admission refuses in ComfyUI's templates, each with its rule; docs/hosting.md lists them.
REASONS = ("permits.api_nodes", "permits.merge_and_save_models")


def prompt_of(path: Path) -> dict:
    """A workflow's nodes as a prompt without links, with the texts of its widgets; subgraphs are opened."""
    workflow = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(workflow, dict) or "nodes" not in workflow:
        return {}
    inner = [node for graph in (workflow.get("definitions") or {}).get("subgraphs", ()) for node in graph["nodes"]]
    prompt = {}
    for number, node in enumerate([*workflow["nodes"], *inner]):
        values = node.get("widgets_values") or []
        texts = values.values() if isinstance(values, dict) else values
        named = {
            f"widget {place}": text
            for place, text in enumerate(texts)
            if isinstance(text, str) and len(text) < 200 and not node["type"].startswith("Regex")
        }
        prompt[str(number)] = {"class_type": node["type"], "inputs": named, "_meta": {"title": node.get("title", "")}}
    return prompt


def refusal(guarded, prompt) -> str:
    """What the guardrail says to a graph before it is queued; empty if it has nothing against it."""
    body = json.dumps({"prompt": prompt}).encode()
    request = urllib.request.Request(f"{guarded.address}/prompt", body, {"Content-Type": "application/json"})
    try:
        urllib.request.urlopen(request, timeout=120).close()
    except urllib.error.HTTPError as error:
        told = json.loads(error.read())["error"]
        return told["message"] if told["type"] == "safety_steering_refused" else ""
    return ""


def templates() -> list[Path]:
    package = pytest.importorskip("comfyui_workflow_templates_json")
    return sorted((Path(package.__file__).parent / "templates").glob("*.json"))


def test_templates_that_sample(guarded):
    found: Counter[str] = Counter()
    for path in templates():
        prompt = prompt_of(path)
        if not any("Sampler" in node["class_type"] for node in prompt.values()):
            continue
        said = refusal(guarded, prompt)
        rule = next((reason for reason in REASONS if reason in said), said or "let through")
        found[rule] += 1
    assert set(found) <= {"let through", *REASONS}, found
    assert found["let through"] > 150, found
    assert found["permits.merge_and_save_models"] <= 8, found


def test_this_packs_workflows(guarded, repo_root):
    files = [*sorted((repo_root / "workflows").glob("*.json"))]
    assert len(files) >= 10
    wanted = {path.name: refusal(guarded, prompt_of(path)) for path in files}
    told = {name: said for name, said in wanted.items() if said}
    assert all("permits.fit_and_save_nodes" in said or "allow.vectors" in said for said in told.values()), told
    guarded.set_policy(permits={"fit_and_save_nodes": True, "unlisted_vectors": True})
    assert {path.name: said for path in files if (said := refusal(guarded, prompt_of(path)))} == {}
