"""docs/workflows.md names every workflow, and the models of each with the addresses and sizes that ComfyUI gives."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import resources
from typing import Any

import pytest
from workflow_builder.build import WORKFLOWS
from workflow_builder.recipes import RECIPES

NAMES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
CODE, FILE = re.compile(r"`(\w+)`"), re.compile(r"\[([^]]+)\]\(([^)]+)\) in `(\w+)`")


@pytest.fixture(scope="module")
def rows(repo_root) -> tuple[list[list[str]], list[list[str]]]:
    """The cells of both tables: what workflows do, and their models."""
    text = (repo_root / "docs" / "workflows.md").read_text(encoding="utf-8")
    first, second = (re.findall(r"^\| .+ \|$", part, re.MULTILINE)[1:] for part in text.split("## Models"))
    return [row.split(" | ") for row in first], [row.strip("| ").split(" | ") for row in second]


def models_of(name: str) -> Iterator[tuple[str, str, str]]:
    """File, address and folder of every model that a workflow's loaders name."""
    workflow = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
    parts = [workflow, *workflow.get("definitions", {}).get("subgraphs", [])]
    for model in [m for part in parts for node in part["nodes"] for m in node["properties"].get("models", [])]:
        yield model["name"], model["url"].removesuffix("?download=true"), model["directory"]


def template_sizes() -> dict[str, int]:
    """Bytes of all models of each of ComfyUI's templates."""
    index = resources.files("comfyui_workflow_templates_json") / "templates" / "index.json"
    groups: list[dict[str, Any]] = json.loads(index.read_text(encoding="utf-8"))
    return {template["name"]: template.get("size", 0) for group in groups for template in group["templates"]}


def test_every_workflow_is_told_of(rows):
    told, modelled = rows
    assert sorted(name for row in told for name in CODE.findall(row[0])) == NAMES
    assert sorted(name for row in modelled for name in CODE.findall(row[1])) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_models_are_those_of_the_workflow(rows, name):
    (row,) = [row for row in rows[1] if name in CODE.findall(row[1])]
    assert set(FILE.findall(row[2])) == set(models_of(name))


def test_the_sizes_are_those_of_comfyuis_templates(rows):
    templates, sizes = {recipe.name: recipe.template for recipe in RECIPES}, template_sizes()
    for row in rows[1]:
        (size,) = {sizes[templates[name]] for name in CODE.findall(row[1]) if name in templates}
        assert row[3] == f"{size / 1e9:.1f} GB"
