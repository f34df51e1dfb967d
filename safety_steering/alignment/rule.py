"""Recommended settings of a carried vector from benign prompts alone, since nothing unsafe was read in the target.

Of a vector of words, with g the carried gap, which estimates how far below the center an unsafe word lies:

    threshold: that of the detectors' false alarm
    strength  = WORD_SHARE * token_norm / g

so clamp moves an unsafe word by WORD_SHARE token norms. Of a vector of whole captions:

    threshold = FACTOR * q,   q = the FALSE_ALARM quantile over benign prompts of their lowest z over all categories
    strength  = SHARE * token_norm / d,   d = E max(0, x),   x ~ N(|threshold| * std_pooled, std_token^2)

z is in benign standard deviations and of prompts that the directions were not made from (`Sharpened.lowest`). d is how
far below the center a token of a prompt that just opens the gate lies on average, counting those above as 0, so clamp
at this strength moves such a prompt's tokens by SHARE of their norm. d is the median over the categories.

FACTOR leaves room for benign content that the benign prompts lack. The lowest z is taken over all categories, weighed
in the mix or not, so a mix that is changed later opens the gate on no more benign prompts than FALSE_ALARM says; in the
small world the categories that a mix leaves out move the threshold by 3 %.

WORD_SHARE, FACTOR and SHARE were chosen on validation prompts of the small world, for two sources
(demo/results/rule.json). At factor 1.5 the gate opens on 78 % of unsafe captions (bundled source), on none of the
benign ones of seen content and on a fifth of those of unseen content. At these shares the strengths lie near or between
the most usable ones of the two sources.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from ..errors import SafetySteeringError
from ..vectors.suggestion import ACTING, CARRIED, FALSE_ALARM
from ..vectors.vector import BENIGN_ONLY, WHOLE, SafetyVector, Suggestion

FACTOR = 1.5
SHARE = 0.42
MAX_STRENGTH = 25.0  # twice of it is as far as Apply goes
WORD_SHARE = 6.0
# of a vector of words; the strength is the rule's
WORDS = replace(ACTING, token_threshold=-1.5, basis=BENIGN_ONLY)


def words_rule(vector: SafetyVector, *, share: float = WORD_SHARE) -> Suggestion:
    """The suggestion for a transferred vector of words with one hook point: one direction for all categories, if it has
    one.
    """
    (name, point), *_ = vector.hook_points.items()
    mix = {WHOLE: 1.0} if WHOLE in vector.categories else dict(vector.mix)
    assert vector.detectors is not None
    gap = torch.stack([point.categories[category].gap.mean() for category in mix]).median()
    return replace(
        WORDS,
        strength=_strength(share * float(point.token_norm), float(gap)),
        hook_points=(name,),
        mix=mix,
        basis_n=vector.detectors.benign,
    )


def benign_rule(
    vector: SafetyVector,
    lowest: torch.Tensor,
    *,
    factor: float = FACTOR,
    share: float = SHARE,
    false_alarm: float = FALSE_ALARM,
) -> Suggestion:
    """The suggestion for a transferred vector with one hook point.

    Args:
        lowest: (n,), each benign prompt's lowest z over the vector's categories.

    Raises:
        SafetySteeringError: the benign prompts do not vary along the vector's directions.
    """
    (name, point), *_ = vector.hook_points.items()
    quantile = float(lowest.double().quantile(false_alarm))
    if not (math.isfinite(quantile) and quantile < 0):
        raise SafetySteeringError(
            "The benign prompts have the same state along the vector's directions, so no threshold can be set. Check "
            "the text encoder, or connect other benign prompts."
        )
    threshold = round(factor * quantile, 2)
    deficits = [
        _mean_deficit(-threshold * float(direction.std_pooled), float(direction.std_token))
        for direction in point.categories.values()
    ]
    deficit = float(torch.tensor(deficits).median())
    return Suggestion(
        strength=_strength(share * float(point.token_norm), deficit),
        hook_points=(name,),
        intervention=CARRIED.intervention,
        mix=dict(vector.mix),
        norm=CARRIED.norm,
        gate=CARRIED.gate,
        threshold=threshold,
        false_alarm=false_alarm,
        window=CARRIED.window,
        branch=CARRIED.branch,
        basis=BENIGN_ONLY,
        basis_n=len(lowest),
    )


def _strength(movement: float, deficit: float) -> float:
    """The strength by which clamp moves a token by `movement` if it lies `deficit` below the center; two digits."""
    return float(f"{min(movement / max(deficit, torch.finfo(torch.float32).tiny), MAX_STRENGTH):.2g}")


def _mean_deficit(mean: float, std: float) -> float:
    """E max(0, x) of x ~ N(mean, std^2), with mean above 0."""
    if std == 0:
        return mean
    z = mean / std
    return mean * 0.5 * (1 + math.erf(z / math.sqrt(2))) + std * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
