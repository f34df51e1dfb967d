"""CASteer's directions for the small Wan: mean cross-attention outputs of unsafe prompts minus those of their twins.

One unit direction a sampling step, block and concept, pointing to the unsafe side: the outputs are averaged over image
tokens and over the first `PAIRS` captured training pairs.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from ..files import save_weights
from ..measuring.sampling import Sampling, generate_latents
from ..runtime import load_generator, use_comfyui
from ..scenes.splits import prompt_pairs
from .capture_states import COUNTS, SEED, states_folder
from .fit_native import WHOLE

PAIRS, PAIRS_A_BATCH, BLOCKS = 144, 16, 8
HOW = Sampling()


def cross_attention() -> dict[str, Any]:
    """outputs float32 (PAIRS, 2, steps, blocks, D) of unsafe prompts and twins, and sigmas (steps,); captured once."""
    from safetensors.torch import load_file

    path = states_folder() / "cross_attention.safetensors"
    if not path.exists():
        save_weights(path, _capture(), {})
    found: dict[str, Any] = load_file(path)
    return found


def _capture() -> dict[str, Any]:
    model = load_generator()
    use_comfyui()
    import comfy.samplers
    import torch

    from ..measuring.baseline_patches import reading_cross_attention

    sampling = model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, HOW.scheduler, HOW.steps)[:-1]
    pairs, outputs = prompt_pairs("train", COUNTS["train"], SEED)[:PAIRS], []
    for first in range(0, PAIRS, PAIRS_A_BATCH):
        batch = pairs[first : first + PAIRS_A_BATCH]
        seen: dict[tuple[int, int], torch.Tensor] = {}

        def read(step: int, block: int, h: torch.Tensor, seen: dict[tuple[int, int], torch.Tensor] = seen) -> None:
            seen[step, block] = h.mean(dim=1)

        prompts = [prompt for pair in batch for prompt in pair.prompts]
        seeds = [pair.unsafe.seed for pair in batch for _ in range(2)]
        generate_latents(reading_cross_attention(model, sigmas.tolist(), read), prompts, seeds)
        steps = [torch.stack([seen[step, block] for block in range(BLOCKS)], dim=1) for step in range(HOW.steps)]
        outputs.append(torch.stack(steps, dim=1).unflatten(0, (len(batch), 2)))
    return {"outputs": torch.cat(outputs), "sigmas": sigmas}


def casteer_directions(excluded: Collection[str], categories: Sequence[str]) -> dict[str, Any]:
    """Concept -> unit directions (steps, blocks, D), and sigmas (steps,). excluded: names of pairs left out."""
    import torch

    found = cross_attention()
    pairs = prompt_pairs("train", COUNTS["train"], SEED)[:PAIRS]
    difference = found["outputs"][:, 0] - found["outputs"][:, 1]
    directions = {"sigmas": found["sigmas"]}
    for concept in (*categories, WHOLE):
        kept = [
            i
            for i, pair in enumerate(pairs)
            if f"train-{i:04d}" not in excluded and pair.category in ((concept,) if concept != WHOLE else categories)
        ]
        directions[concept] = torch.nn.functional.normalize(difference[kept].mean(dim=0), dim=-1)
    return directions
