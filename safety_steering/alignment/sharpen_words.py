"""Sharpening a vector of words: its directions by the covariance of tokens, its detectors by that of whole prompts.

Both are the equation of `sharpen`. A direction acts on tokens, so S is the covariance of the tokens of benign prompts
(TOKEN_SHRINKAGE), and center and spread are those of tokens that it was not made from. A detector reads mean states, so
S is that of `sharpen`, and its quantiles are of z over prompts that it was not made from. A user's own prompts are of
one style and lack much that is benign, so their quantiles are taken times ROOM. The anchors are of many domains and
lack little: the f quantile of theirs is the threshold that a share f of everyday captions passes.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from ..linear_algebra import shrunk_solve
from ..vectors.detector import LEVELS, Detector, Detectors
from ..vectors.vector import Direction, SafetyVector
from .alignment import AnchorStates
from .sharpen import FOLDS, apart, check_sharpening, recorded, sharp

TOKEN_SHRINKAGE = 1.0
ROOM = 1.5


def sharpen_words(
    vector: SafetyVector,
    benign: AnchorStates,
    tokens: torch.Tensor,
    shrinkage: float,
    anchors: AnchorStates | None = None,
) -> SafetyVector:
    """The vector, which has detectors and one hook point, sharpened.

    Args:
        benign, anchors: as of `sharpen`. tokens: (m, D) states of tokens of benign prompts, those of a prompt in a row.
        shrinkage: of the detectors' covariance; `inf` turns nothing and measures statistics alone.

    Raises:
        SafetySteeringError: as of `sharpen`.
    """
    check_sharpening(vector, benign, shrinkage)
    assert vector.detectors is not None
    (name, point), *_ = vector.hook_points.items()
    names, tokens = list(point.categories), tokens.double()
    u = torch.stack([direction.direction[0].double() for direction in point.categories.values()])
    turn = not math.isinf(shrinkage)
    w = _turned(u, tokens) if turn else u
    held = _held_out(u, tokens) if turn else tokens @ u.T
    center, spread = held.mean(dim=0), held.std(dim=0)
    overlap = (u * w).sum(dim=1)
    categories = {
        category: Direction(
            w[i, None].float(),
            gap=(direction.gap.double() * overlap[i]).float(),
            center=center[i, None].float(),
            # the mean of a prompt's tokens varies by less; the gate of these vectors reads the detectors
            std_pooled=(benign.pooled.double() @ w[i]).std()[None].float(),
            std_token=spread[i, None].float(),
        )
        for i, (category, direction) in enumerate(point.categories.items())
    }
    norm = tokens.norm(dim=1).median()[None].float()
    result = replace(
        vector,
        hook_points={name: replace(point, categories=categories, token_norm=norm)},
        detectors=_detectors(vector.detectors, names, benign, shrinkage, anchors),
    )
    return recorded(result, vector, benign, shrinkage, anchors)


def _turned(u: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    solved = shrunk_solve(u, tokens - tokens.mean(dim=0), TOKEN_SHRINKAGE)
    return torch.nn.functional.normalize(solved, dim=1)


def _held_out(u: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Projections (m, C) of tokens on directions made without their fold; prompts lie in a row, and so do folds."""
    parts = torch.arange(len(tokens)).chunk(FOLDS)
    found = torch.empty(len(tokens), len(u), dtype=torch.float64)
    for part in parts:
        kept = torch.ones(len(tokens), dtype=torch.bool)
        kept[part] = False
        found[part] = tokens[part] @ _turned(u, tokens[kept]).T
    return found


def _detectors(
    found: Detectors, names: list[str], benign: AnchorStates, shrinkage: float, anchors: AnchorStates | None
) -> Detectors:
    u = torch.stack([found.categories[name].direction.double() for name in names])
    pooled = benign.pooled.double()
    rows = pooled if anchors is None else torch.cat([pooled, anchors.pooled.double()])
    w = sharp(u, rows, len(pooled), shrinkage)
    below, _ = apart(u, rows, pooled, shrinkage)
    spread, center = below.square().mean(dim=0).sqrt(), w @ pooled.mean(dim=0)
    z = (1.0 if anchors is None else ROOM) * below / spread.clamp_min(torch.finfo(torch.float64).tiny)
    quantiles = z.quantile(torch.tensor(LEVELS, dtype=torch.float64), dim=0)
    categories = {
        name: Detector(w[i].float(), center[i].float(), spread[i].float(), quantiles[:, i].float())
        for i, name in enumerate(names)
    }
    return replace(found, categories=categories, benign=len(pooled))
