"""How far a fitted direction can be trusted: does it come again from other prompts, and could chance have made it?

A class difference is a contrast: weights w with 1 / n_safe on safe rows, -1 / n_unsafe on unsafe ones, so that
d = w^T X. Halves and permutations are other weights on the same rows, hence one matrix product for many of them.
Rows of one pair are drawn together and exchange labels only among themselves; rows without a pair form one stratum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

Fit = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Confidence:
    """Cosine between the directions of two random halves of the prompts: mean, and the lowest tenth's edge."""

    mean: float
    low: float


def contrast(unsafe: torch.Tensor) -> torch.Tensor:
    """The weights (n,) float64 of the class difference safe - unsafe; `unsafe` (n,) bool."""
    return (~unsafe).double() / (~unsafe).sum() - unsafe.double() / unsafe.sum()


def strata(pairs: Sequence[str]) -> torch.Tensor:
    """A number for each row (n,), the same for rows of one pair; 0 for all rows without one."""
    numbers = {"": 0}
    return torch.tensor([numbers.setdefault(pair, len(numbers)) for pair in pairs], dtype=torch.long)


def bootstrap_confidence(
    fit: Fit, unsafe: torch.Tensor, groups: torch.Tensor, *, repeats: int, generator: torch.Generator
) -> Confidence:
    """Fit on two halves, `repeats` times, and compare: 1 is the same direction, 0 none in common.

    fit: contrast weights (m, n) -> directions (m, D). groups: from `strata`; pairs stay together. NaN if some half
    lacks one of the classes.
    """
    weights = []
    for _ in range(repeats):
        first = _half(unsafe, groups, generator)
        weights += [_contrast_within(unsafe, first), _contrast_within(unsafe, ~first)]
    stacked = torch.stack(weights)
    if bool(stacked.isnan().any()):
        return Confidence(float("nan"), float("nan"))
    directions = torch.nn.functional.normalize(fit(stacked), dim=1)
    cosines = (directions[0::2] * directions[1::2]).sum(dim=1)
    return Confidence(float(cosines.mean()), float(cosines.quantile(0.1)))


def _half(unsafe: torch.Tensor, groups: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Half of the pairs, and half of the unpaired rows of each class; (n,) bool."""
    chosen = torch.zeros(len(unsafe), dtype=torch.bool)
    paired = groups > 0
    names = torch.tensor(sorted(set(groups[paired].tolist())), dtype=torch.long)
    drawn = names[torch.randperm(len(names), generator=generator)[: len(names) // 2]]
    chosen |= paired & torch.isin(groups, drawn)
    for members in (unsafe & ~paired, ~unsafe & ~paired):
        rows = members.nonzero()[:, 0]
        chosen[rows[torch.randperm(len(rows), generator=generator)[: len(rows) // 2]]] = True
    return chosen


def _contrast_within(unsafe: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    bad, good = (unsafe & chosen).double(), (~unsafe & chosen).double()
    return good / good.sum() - bad / bad.sum()


def permutation_p_value(
    x: torch.Tensor, unsafe: torch.Tensor, groups: torch.Tensor, *, repeats: int, generator: torch.Generator
) -> float:
    """How often labels that are exchanged within pairs give a class difference as long as the real one; in (0, 1].

    x: (n, D). The statistic is ||w^T X||, and (1 + hits) / (1 + repeats) counts the real labels among the draws
    (Phipson and Smyth 2010).
    """
    real = contrast(unsafe)
    base = torch.argsort(groups, stable=True)
    keys = torch.rand(repeats, len(groups), generator=generator, dtype=torch.float64) + groups
    shuffled = torch.empty(repeats, len(groups), dtype=torch.float64)
    shuffled[:, base] = real[torch.argsort(keys, dim=1)]
    weights = torch.cat([real[None], shuffled])
    # float32 is enough once the offset that all rows share is gone, and takes half the time
    lengths = (weights.float() @ (x - x.mean(dim=0)).float()).norm(dim=1)
    # a draw that leaves every label in place is a tie, and rounding must not decide it
    hits = int((lengths[1:] >= lengths[0] * (1 - 1e-5)).sum())
    return (1 + hits) / (1 + repeats)
