"""How much of a source direction the anchors can carry: what they hardly vary along, no map can know.

    coverage = <q, A q>,   A = X^T X (X^T X + lambda I)^-1,   q = (v / scale) / ||v / scale||

X are the standardised anchors and lambda the fit's penalty (0 for methods without one: the share inside the anchors'
span). Anchors that are all alike give a good R2 on their like and a small coverage.
"""

from __future__ import annotations

import torch

from .alignment.fit import Alignment
from .linear_algebra import spectrum
from .vectors.vector import HookPointDirections


def coverage(point: HookPointDirections, source: torch.Tensor, alignment: Alignment) -> dict[str, float]:
    """Category -> share from 0 to 1 of its direction; source: the anchors' states (n, D_s) that were fitted on."""
    scale = alignment.source_scale.double()
    found = spectrum((source.double() - alignment.source_mean.double()) / scale)
    kept = found.squares / (found.squares + alignment.map.chosen.get("penalty", 0.0))
    shares = {}
    for name, direction in point.categories.items():
        q = torch.nn.functional.normalize(direction.direction[0].double() / scale, dim=0)
        shares[name] = float((q @ found.right).square() @ kept)
    return shares
