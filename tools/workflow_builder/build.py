"""Builds the shipped workflows, their diagrams, and the blueprint "Safe T2V", from ComfyUI's own templates.

.venv/bin/python tools/start.py workflow_builder.build             # all of them, into workflows/ and subgraphs/
.venv/bin/python tools/start.py workflow_builder.build wan21_t2v   # some
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from safety_steering_pack.safety_steering.files import file_sha256
from safety_steering_pack.safety_steering.vectors.file import read_label

from workflow_builder import evaluate, native
from workflow_builder.blueprint import NAME, build_blueprint
from workflow_builder.chain import VectorFile
from workflow_builder.page import Page
from workflow_builder.pages import build
from workflow_builder.picture import draw_workflow
from workflow_builder.recipes import RECIPES

REPO_ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = REPO_ROOT / "workflows"
BLUEPRINT = REPO_ROOT / "subgraphs" / f"{NAME}.json"
VECTOR = REPO_ROOT / "vectors" / "smollm2_135m_portable.safetensors"
ORIGIN = "comes with Safety Steering: update the node pack"


def vector_file(path: Path) -> VectorFile:
    """What a workflow says of the vector that it loads."""
    return VectorFile(path.name, file_sha256(path), read_label(path), ORIGIN)


def pages(vector: VectorFile) -> dict[str, Callable[[], Page]]:
    """Name -> builder of every shipped workflow. vector: the file that the portable ones load."""
    return {
        **{recipe.name: partial(build, recipe, vector) for recipe in RECIPES},
        **native.PAGES,
        evaluate.NAME: partial(evaluate.evaluate_vector, vector),
    }


def diagrams() -> dict[str, Image.Image]:
    """Name -> thumbnail of the workflows that have a diagram. The others show a run, from the browser tests."""
    drawn = {
        recipe.name: draw_workflow(
            recipe.name, recipe.model, [link.stage.capitalize() for link in recipe.steered], recipe.five
        )
        for recipe in RECIPES
        if not recipe.compared
    }
    return {**drawn, evaluate.NAME: evaluate.thumbnail()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="some workflows only")
    parser.add_argument("--vector", type=Path, default=VECTOR, help="what Load Safety Vector names (default: bundled)")
    arguments = parser.parse_args()
    vector = vector_file(arguments.vector)
    builders, pictures = pages(vector), diagrams()
    if unknown := sorted(set(arguments.names) - set(builders)):
        parser.error(f"no workflow is called {', '.join(unknown)}. There are: {', '.join(builders)}.")
    for name in arguments.names or builders:
        page = builders[name]()
        _write(WORKFLOWS / f"{name}.json", page.workflow())
        if name in pictures:
            pictures[name].save(WORKFLOWS / f"{name}.jpg", quality=88, optimize=True)
        print(f"workflows/{name}.json  {len(page.graph.nodes)} nodes")
    if not arguments.names:
        _write(BLUEPRINT, build_blueprint())
        print(BLUEPRINT.relative_to(REPO_ROOT))


def _write(path: Path, workflow: dict[str, Any]) -> None:
    path.write_text(json.dumps(workflow, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
