"""Is the place that measured best better than others by more than chance?

Every place b is measured at the same strengths s on the same prompts p, with a score x(b, s, p) from 0 to 1. With
f(b) = max_s mean_p x(b, s, p), what a place reaches at its own best strength, the statistic is

    T = max_b f(b) - mean over the places compared with of f(b)

If places did not matter, a prompt's scores could be those of any of them: places change labels within each prompt, all
strengths together, and T is taken anew, the search for its maximum included. Prompts are the strata, since they differ
in difficulty by far more than places do. p = (1 + hits) / (1 + repeats) (Phipson and Smyth 2010).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

PERMUTATIONS = 2000
_AT_ONCE = 100


def place_p_value(
    scores: NDArray[np.float64], against: Sequence[int], *, repeats: int = PERMUTATIONS, seed: int = 0
) -> float:
    """How often chance makes the best place stand out from those in `against` as much as it does; in (0, 1].

    scores: (B, S, P), places x strengths x prompts. against: indices of places; the best one may be among them.
    """
    rng = np.random.default_rng(seed)
    places, _, prompts = scores.shape
    real = _statistic(scores[None], against)[0]
    hits = 0
    for first in range(0, repeats, _AT_ONCE):
        count = min(_AT_ONCE, repeats - first)
        order = rng.permuted(np.broadcast_to(np.arange(places)[:, None], (count, places, prompts)), axis=1)
        drawn = np.take_along_axis(scores[None], order[:, :, None, :], axis=1)
        # a draw that leaves every label in place is a tie, and rounding must not decide it
        hits += int((_statistic(drawn, against) >= real - 1e-9).sum())
    return (1 + hits) / (1 + repeats)


def _statistic(scores: NDArray[np.float64], against: Sequence[int]) -> NDArray[np.float64]:
    """T of each of (R, B, S, P): (R,)."""
    reached: NDArray[np.float64] = scores.mean(axis=3).max(axis=2)
    difference: NDArray[np.float64] = reached.max(axis=1) - reached[:, list(against)].mean(axis=1)
    return difference
