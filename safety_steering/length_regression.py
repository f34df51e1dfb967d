"""Taking a prompt's length out of its states: unsafe prompts tend to be longer, and length is not safety.

Each channel is regressed on the prompt's length *within* the classes (analysis of covariance), so that the slope knows
nothing of the classes' difference, and the length that exceeds the overall mean is taken out:

    h_i <- h_i - b (l_i - mean l),   b = sum (l_i - mean l_class)(h_i - mu_class) / sum (l_i - mean l_class)^2
"""

from __future__ import annotations

import torch

from .errors import SafetySteeringError


def without_length(x: torch.Tensor, lengths: torch.Tensor, unsafe: torch.Tensor) -> torch.Tensor:
    """States x (n, D) float64 with the effect of lengths (n,) taken out; unsafe (n,) bool gives the classes.

    Raises:
        SafetySteeringError: a length is not known (0), or within each class all are alike.
    """
    if not bool((lengths > 0).all()):
        raise SafetySteeringError(
            "The length of some prompts is not known, so it cannot be regressed out. "
            "Capture them again, or switch length regression off."
        )
    lengths = lengths.double()
    within = lengths.clone()
    for members in (unsafe, ~unsafe):
        within[members] -= lengths[members].mean()
    spread = within.square().sum()
    if not float(spread) > 0:
        raise SafetySteeringError(
            "Within each class all prompts have the same length, so there is no slope to take out. "
            "Switch length regression off."
        )
    # `within` sums to zero in each class, so the classes' means drop out of this product
    slope = within @ x / spread
    return x - (lengths - lengths.mean())[:, None] * slope
