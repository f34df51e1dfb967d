"""Builds the workflows for artists, and their thumbnails, from ComfyUI's own templates; and the blueprint "Safe T2V".

.venv/bin/python tools/start.py workflow_builder.build             # all of them, into workflows/ and subgraphs/
.venv/bin/python tools/start.py workflow_builder.build wan21_t2v   # some
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from workflow_builder.blueprint import NAME, build_blueprint
from workflow_builder.chain import VectorFile
from workflow_builder.picture import draw_workflow
from workflow_builder.recipes import RECIPES, build

REPO_ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = REPO_ROOT / "workflows"
BLUEPRINT = REPO_ROOT / "subgraphs" / f"{NAME}.json"
VECTOR = REPO_ROOT / "vectors" / "smollm2_135m_portable.safetensors"
ORIGIN = "comes with Safety Steering: update the node pack"


def vector_file(path: Path) -> VectorFile:
    """What a workflow says of the vector that it loads."""
    from safety_steering_pack.safety_steering.files import file_sha256
    from safety_steering_pack.safety_steering.vectors.file import read_label

    return VectorFile(path.name, file_sha256(path), read_label(path), ORIGIN)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(r.name for r in RECIPES)}"
    )
    parser.add_argument("--vector", type=Path, default=VECTOR, help="what Load Safety Vector names (default: bundled)")
    arguments = parser.parse_args()
    names, vector = arguments.names, vector_file(arguments.vector)
    for recipe in RECIPES:
        if names and recipe.name not in names:
            continue
        page = build(recipe, vector)
        _write(WORKFLOWS / f"{recipe.name}.json", page.workflow())
        if not recipe.compared:  # else it is a picture of a real run, from the browser tests
            picture = draw_workflow(recipe.name, recipe.model, [link.stage.capitalize() for link in recipe.steered])
            picture.save(WORKFLOWS / f"{recipe.name}.jpg", quality=88, optimize=True)
        print(f"workflows/{recipe.name}.json  {len(page.graph.nodes)} nodes")
    if not names:
        _write(BLUEPRINT, build_blueprint(vector))
        print(BLUEPRINT.relative_to(REPO_ROOT))


def _write(path: Path, workflow: dict[str, Any]) -> None:
    path.write_text(json.dumps(workflow, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
