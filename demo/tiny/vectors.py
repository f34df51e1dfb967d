"""Safety vectors with random directions, for the tiny random-weight models: they fit, and mean nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from safety_steering_pack.safety_steering.vectors.vector import (
    Direction,
    HookPointDirections,
    SafetyVector,
    Suggestion,
    VectorInfo,
)


def random_vector(
    spaces: Mapping[str, tuple[str, int]],
    *,
    categories: Sequence[str] = ("violence",),
    family: str = "",
    block_counts: Mapping[str, int] | None = None,
    gap: float = 4.0,
    sigma_edges: Sequence[float] = (0.0, 1.0),
    seed: int = 0,
) -> SafetyVector:
    """A native vector of random unit directions. `spaces`: hook point -> (space, width); a sigma bin an interval."""
    generator = torch.Generator().manual_seed(seed)
    bins = len(sigma_edges) - 1

    def direction(width: int) -> Direction:
        rows = torch.randn(bins, width, generator=generator, dtype=torch.float64)
        ones = torch.ones(bins)
        return Direction((rows / rows.norm(dim=1, keepdim=True)).float(), gap * ones, 0 * ones, ones, ones)

    points = {
        name: HookPointDirections(
            space=space,
            sigma_edges=torch.tensor(sigma_edges, dtype=torch.float32),
            token_norm=torch.ones(bins),
            categories={category: direction(width) for category in categories},
        )
        for name, (space, width) in spaces.items()
    }
    info = VectorInfo(
        kind="native",
        gap_kind="estimated",
        family=family,
        model_name=family,
        block_counts=block_counts or {},
        method="random directions, for tests",
        suggestion=Suggestion(hook_points=tuple(points)[:1]),
        licence="Apache-2.0",
        provenance=({"operation": "random", "seed": seed},),
    )
    return SafetyVector(points, info)


def vector_for(
    diffusion_model: torch.nn.Module, *, conditioning_width: int = 4096, reads: bool = False, **options: Any
) -> SafetyVector:
    """A random vector at every block of a loaded model, and at `conditioning` if the model takes such states.

    reads: also at everything that the blocks read from the text.
    """
    from safety_steering_pack.bridge.models.model_map import read_shape, state_space

    shape = read_shape(diffusion_model)
    spaces = {name: (f"{shape.name}/{name}", width) for name, width in shape.widths.items() if reads or name.is_block}
    if "conditioning" in shape.family.states:
        space = state_space(shape.family, "conditioning", conditioning_width)
        spaces = {"conditioning": (space, conditioning_width), **spaces}
    return random_vector(spaces, family=shape.family.name, block_counts=shape.block_counts, **options)
