"""Fit the small Wan's native directions from captured states and write them as safety vectors.

    python tools/start.py small_world.native.fit_native            (needs `small_world.native.capture_states`)

Two vectors in `weights/`, one a method (mean difference, shrunk LDA), each with all hook points (text states, and every
block in four sigma bins) and four categories: gore, violence, drugs, and `all` of them together. A random vector of the
same gaps is the control. `results/separability.json` has the AUC of each direction on validation.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..files import save_result
from ..runtime import RESULTS, WEIGHTS, use_comfyui
from ..scenes.splits import prompt_pairs
from ..scenes.world import CATEGORIES
from .capture_states import BLOCK_HOOKS, COUNTS, SEED, open_activations

WHOLE = "all"
METHODS = {"mean_difference": "small_wan_native.safetensors", "shrunk_lda": "small_wan_native_lda.safetensors"}
RANDOM_FILE = "small_wan_random.safetensors"
DIGITS = 4
ROUNDED = ("auc", "gap", "std_pooled", "std_token", "token_norm")


def all_activations() -> dict[tuple[str, ...], Any]:
    """Hook points -> the folder that they were captured in."""
    return {("conditioning",): open_activations("conditioning"), BLOCK_HOOKS: open_activations("blocks")}


def fit(method: str, folders: Mapping[tuple[str, ...], Any]) -> tuple[Any, list[dict[str, Any]]]:
    """A native vector from the rows of split "train" in `folders`, and the rows of its separability table."""
    from safety_steering_pack.safety_steering.directions.fitting import FitSettings
    from safety_steering_pack.safety_steering.directions.native import fit_vector

    fitted = [fit_vector(folder, FitSettings(method=method), categories=CATEGORIES) for folder in folders.values()]
    points = {name: point for one in fitted for name, point in one.vector.hook_points.items()}
    rows = [_row(method, row) for one in fitted for row in one.table]
    vector = replace(fitted[0].vector, hook_points=points).with_info(
        model_name="small world Wan",
        window=(0.0, 1.0),
        validation_auc={row["category"]: row["auc"] for row in rows if row["hook_point"] == "conditioning"},
        licence="CC0-1.0",
    )
    return vector, rows


def _row(method: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """A row of `fit_vector`'s table in the shape of `results/separability.json`."""
    names = ("hook_point", "category", "sigma", *ROUNDED, "split")
    row = {"setting": method, **{name: found[name] for name in names}}
    row["sigma"] = [round(edge, DIGITS) for edge in row["sigma"]]
    return row | {name: None if row[name] is None else round(row[name], DIGITS) for name in ROUNDED}


def random_like(vector: Any, seed: int) -> Any:
    """The control: the same vector with random unit directions in place of the fitted ones."""
    import torch

    generator = torch.Generator().manual_seed(seed)

    def drawn(direction: Any) -> Any:
        noise = torch.randn(direction.direction.shape, generator=generator)
        return replace(direction, direction=noise / noise.norm(dim=1, keepdim=True))

    points = {
        name: replace(point, categories={key: drawn(value) for key, value in point.categories.items()})
        for name, point in vector.hook_points.items()
    }
    return replace(vector, hook_points=points, info=replace(vector.info, method=f"random directions, seed {seed}"))


def prompts_sha256(seed: int) -> str:
    """Hash of the prompts that the states were captured on."""
    texts = "\n".join(
        text for split, n in COUNTS.items() for pair in prompt_pairs(split, n, seed) for text in pair.prompts
    )
    return hashlib.sha256(texts.encode()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=SEED, help="the seed of the captured pairs")
    arguments = parser.parse_args()
    use_comfyui()
    from safety_steering_pack.safety_steering.vectors.file import save_vector

    table: list[dict[str, Any]] = []
    for method, name in METHODS.items():
        vector, rows = fit(method, all_activations())
        vector = vector.with_info(prompts_sha256=prompts_sha256(arguments.seed))
        save_vector(vector, WEIGHTS / name)
        if method == "mean_difference":
            save_vector(random_like(vector, arguments.seed), WEIGHTS / RANDOM_FILE)
        table += rows
    save_result(
        RESULTS / "separability.json",
        " ".join(["python tools/start.py small_world.native.fit_native", *sys.argv[1:]]),
        [arguments.seed],
        table,
    )
    for row in table:
        if row["category"] == WHOLE:
            print(f"{row['setting']:16} {row['hook_point']:22} sigma {row['sigma']}  AUC {row['auc']:.3f}")


if __name__ == "__main__":
    main()
