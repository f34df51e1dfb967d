"""The small world's own portable vector: SmolLM2, pairs of its three categories, and the bundled benign anchors.

    python tools/start.py small_world.portable.source_vector          (two to three minutes of one core)

Pairs are those of the train and validation splits. Generator, text encoder and pictures are not used. `--anchors own`
takes 1 000 captions of this world as anchors instead: a control, since an alignment on so few subjects and sentences
does not carry other content.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from ..runtime import work_dir
from ..scenes.render import Scene, caption
from ..scenes.splits import prompt_pairs
from ..scenes.world import (
    BACKGROUNDS,
    BENIGN_ELEMENTS,
    HELD_OUT_ELEMENTS,
    HELD_OUT_SUBJECTS,
    MOTIONS,
    SUBJECTS,
    TRAIN_TEMPLATES,
)

ROOT = Path(__file__).resolve().parents[3]
# by anchors; the second is for one row of a table and stays in the cache
OUTPUTS = {
    "bundled": ROOT / "demo" / "weights" / "small_source.safetensors",
    "own": work_dir() / "small_source_narrow.safetensors",
}
BUNDLED_ANCHORS = ROOT / "vectors" / "prompts" / "benign_anchors.csv"
LICENCE = "CC0-1.0 (directions and captions); made with SmolLM2-135M-Instruct, Apache-2.0"
TRAIN, VALIDATION, ANCHORS = 180, 90, 1000
# words of validation captions separate best here: AUC 0.9999, 0.9997 at 14, 0.9996 at 16, 0.998 at 20
LAYER = "12"


def benign_captions(count: int, seed: int) -> list[str]:
    """`count` different captions of benign scenes without held-out subjects and elements, drawn by `seed`."""
    rng = np.random.default_rng([seed, 77])
    subjects = [thing.name for thing in SUBJECTS if thing.name not in HELD_OUT_SUBJECTS]
    elements = [thing.name for thing in BENIGN_ELEMENTS if thing.name not in HELD_OUT_ELEMENTS]
    motions, backgrounds = list(MOTIONS), list(BACKGROUNDS)

    def drawn(names: list[str]) -> str:
        return names[rng.integers(len(names))]

    found: dict[str, None] = {}
    while len(found) < count:
        template = int(rng.integers(len(TRAIN_TEMPLATES)))
        scene = Scene(drawn(subjects), drawn(elements), drawn(motions), drawn(backgrounds), 0, template)
        found[caption(scene)] = None
    return list(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of the pairs and anchors")
    parser.add_argument("--anchors", choices=("bundled", "own"), default="bundled", help="benign texts to align by")
    parser.add_argument("--output", type=Path, help="default: a file for each kind of anchors")
    options = parser.parse_args()
    from safety_steering_pack.safety_steering.directions.portable import ExtractSettings, anchor_texts, extract_vector
    from safety_steering_pack.safety_steering.language_models.transformers_model import LanguageModel
    from safety_steering_pack.safety_steering.prompts.files import load_prompts
    from safety_steering_pack.safety_steering.prompts.prompt_set import PromptRow, PromptSet
    from safety_steering_pack.safety_steering.vectors.card import describe
    from safety_steering_pack.safety_steering.vectors.file import save_vector
    from smollm2 import smollm2_folder

    rows = [
        PromptRow(f"{split}-{number}", pair.category, *pair.prompts, split=split)
        for split, count in (("train", TRAIN), ("validation", VALIDATION))
        for number, pair in enumerate(prompt_pairs(split, count, options.seed))
    ]
    own = options.anchors == "own"
    extracted = extract_vector(
        LanguageModel(smollm2_folder(), dtype="float64"),
        PromptSet(tuple(rows), "small world"),
        benign_captions(ANCHORS, options.seed) if own else anchor_texts(load_prompts(BUNDLED_ANCHORS)),
        ExtractSettings(layer=LAYER, licence=LICENCE),
    )
    save_vector(extracted.vector, options.output or OUTPUTS[options.anchors])
    print(describe(extracted.vector))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
