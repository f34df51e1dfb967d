"""Capture the small Wan's states on prompt pairs: the text states, and in four sigma bins every block's output and what
it reads from the text.

    python tools/start.py small_world.native.capture_states        (needs the generator)

Writes three activation folders in the cache: `conditioning` (one bin), `blocks` (four bins) and `cross_attention` (four
bins, of fewer pairs, and the text states too). One generation of each prompt serves all. Twins share noise, so that
their states differ by the element alone. A stopped run is resumed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..files import file_sha256
from ..measuring.sampling import generate_latents
from ..models.text import WIDTH
from ..runtime import GENERATOR_FILE, load_generator, use_comfyui, work_dir
from ..scenes.splits import PromptPair, prompt_pairs

BLOCKS = 8
BLOCK_HOOKS = tuple(f"block.blocks.{i}.image" for i in range(BLOCKS))
CROSS_HOOKS = tuple(f"cross_attention.blocks.{i}.image" for i in range(BLOCKS))
HOOKS = {
    "conditioning": ("conditioning",),
    "blocks": BLOCK_HOOKS,
    "cross_attention": ("conditioning", *CROSS_HOOKS),
}
# equal quarters of a run with shift 3: sigma = 3 t / (1 + 2 t) at t = 0, 1/4, 1/2, 3/4, 1
QUARTERS = (0.0, 0.5, 0.75, 0.9, 1.0)
SIGMA_EDGES = {"conditioning": (0.0, 1.0), "blocks": QUARTERS, "cross_attention": QUARTERS}
SEED = 11  # of the prompt pairs
COUNTS = {"train": 480, "validation": 160}
FEWER = {"cross_attention": {"train": 192, "validation": 64}}
PAIRS_A_BATCH = 16


def states_folder() -> Path:
    """The folder of the captured states; each generator has its own."""
    return work_dir() / f"states-{file_sha256(GENERATOR_FILE)[:12]}"


def open_activations(kind: str) -> Any:
    """The captured states of a kind of HOOKS; raises if they have not been captured."""
    use_comfyui()
    from safety_steering_pack.safety_steering.activations import Activations

    return Activations.open(states_folder() / kind)


def rows_of(pairs: Sequence[PromptPair], first: int) -> list[Any]:
    """Unsafe and safe row of each pair, in turn; `first` numbers the pairs within their split."""
    from safety_steering_pack.safety_steering.activations import Row

    rows = []
    for number, pair in enumerate(pairs, start=first):
        name = f"{pair.split}-{number:04d}"
        rows += [Row(f"{name}-{label}", label, pair.category, name, pair.split) for label in ("unsafe", "safe")]
    return rows


def capture(seed: int, kinds: Sequence[str] = tuple(HOOKS)) -> None:
    """Capture the pairs that the folders of these kinds do not have."""
    from tqdm import tqdm

    use_comfyui()
    from safety_steering_pack.bridge.capture.collect import Capture, capture_source
    from safety_steering_pack.bridge.sampling.sampling import fraction
    from safety_steering_pack.safety_steering.activations import Activations
    from safety_steering_pack.safety_steering.hook_point import HookPoint

    model = load_generator()
    captures, folders = {}, {}
    captured = model
    for kind in kinds:
        source = capture_source(model, tuple(map(HookPoint, HOOKS[kind])), SIGMA_EDGES[kind], WIDTH)
        folders[kind] = Activations.create(states_folder() / kind, source)
        captures[kind] = Capture(source)
        captured = captures[kind].attach(captured)
    known = {kind: {row.id for row in folder.rows()} for kind, folder in folders.items()}
    for split, count in COUNTS.items():
        pairs = prompt_pairs(split, count, seed)
        for first in tqdm(range(0, count, PAIRS_A_BATCH), desc=split, mininterval=5):
            batch = pairs[first : first + PAIRS_A_BATCH]
            rows = rows_of(batch, first)
            wanted = [kind for kind in kinds if first < FEWER.get(kind, COUNTS)[split]]
            missing = [kind for kind in wanted if rows[0].id not in known[kind]]
            if not missing:
                continue
            for one in captures.values():
                one.token_fractions = [fraction(row.id) for row in rows]
                one.token_pairs = [row.pair for row in rows]
            prompts = [prompt for pair in batch for prompt in pair.prompts]
            generate_latents(captured, prompts, [pair.unsafe.seed for pair in batch for _ in range(2)])
            for kind in missing:
                folders[kind].append(rows, captures[kind].states)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--kinds", nargs="+", choices=HOOKS, default=list(HOOKS), help="which folders to write")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(arguments.threads)
    capture(arguments.seed, arguments.kinds)


if __name__ == "__main__":
    main()
