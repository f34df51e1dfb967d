"""Fits directions at one hook point from the difference of the class means, d = mu_safe - mu_unsafe.

    mean_difference   d itself, which is binary Supervised PCA (Barshan et al. 2011, see `methods`)
    supervised_pca    d projected on the subspace that the labels of all categories share
    shrunk_lda        (S_w + lambda I)^-1 d
    logistic_probe    the axis that predicts the label best, for comparison

A category's unsafe rows are set against their own safe twins (rows that share `pair`), so that subject, background and
noise cancel; without twins, against every safe row. With `tokens` "differing" an unsafe row is the mean of the tokens
by which it differs from its twin (`differing`), and the scatter, the center and the spreads are those of benign tokens.

Standardising divides every channel by its benign standard deviation s before the fit. With <z, u_z> = <h, u_z / s> the
stored axis is u = (u_z / s) / ||u_z / s||, so that a mean difference becomes the diagonal discriminant d / s^2. (As a
displacement, s u_z would be the plain mean difference again.) Sums are float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import torch

from ..activations import SAFE, UNSAFE, Row, States
from ..errors import SafetySteeringError
from ..linear_algebra import ShrunkScatter
from ..vectors.vector import DIFFERING, POOLED, STATISTICS, Direction, HookPointDirections
from .differing import with_differing
from .methods import KERNELS, label_factor, logistic_probe, shrunk_lda, supervised_pca, without_length
from .rows import TRAIN, Benign, Classes, categories_of, classes_of, seen_in, weighted_sums, where
from .statistics import Confidence, Statistics, agreement, contrast, half_contrasts, measured, permutation_p_value

TOKENS = (POOLED, DIFFERING)
METHODS = ("mean_difference", "supervised_pca", "shrunk_lda", "logistic_probe")
LABELS = ("binary", "categories")
ROUNDING = 1e-12  # of the longest state; a shorter class difference is rounding


@dataclass(frozen=True)
class FitSettings:
    """How to fit.

    tokens: what an unsafe row is, the mean of all its tokens ("pooled") or of those that differ from its safe twin's
        ("differing"). A category without twins is fitted on pooled states.
    standardise: give every channel the same weight. regress_length: remove the effect of the prompts' length.
    kernel, labels, components: supervised_pca. labels "binary" is safe against unsafe, one component at most;
        "categories" tells the categories apart. components 0 keeps all.
    shrinkage: shrunk_lda. inverse_penalty: logistic_probe.
    halves, permutations: how many of each the statistics take, 0 for none. seed: of both.

    Raises:
        SafetySteeringError: on construction, if a choice is not one of those listed.
    """

    method: str = "mean_difference"
    standardise: bool = False
    regress_length: bool = False
    kernel: str = "delta"
    labels: str = "categories"
    components: int = 0
    shrinkage: float = 1.0
    inverse_penalty: float = 1.0
    halves: int = 0
    permutations: int = 0
    seed: int = 0
    tokens: str = POOLED

    def __post_init__(self) -> None:
        for name, known in (("method", METHODS), ("kernel", KERNELS), ("labels", LABELS), ("tokens", TOKENS)):
            if getattr(self, name) not in known:
                raise SafetySteeringError(f"The {name} is '{getattr(self, name)}', expected one of {', '.join(known)}.")


@dataclass(frozen=True, eq=False)
class _Side:
    """What every category is fitted on: states (N, K, D), which of them were seen, and the benign rows.

    subspaces: of `supervised_pca`, one a sigma bin. scatters: of benign tokens, one a sigma bin; None: of the classes.
    """

    states: torch.Tensor
    seen: torch.Tensor
    benign: Benign
    subspaces: Sequence[torch.Tensor | None]
    scatters: Sequence[ShrunkScatter] | None


def fit_states(
    rows: Sequence[Row],
    states: States,
    categories: Sequence[str],
    settings: FitSettings,
    *,
    space: str,
    sigma_edges: Sequence[float],
    split: str = TRAIN,
    whole: str = "",
    differing: torch.Tensor | None = None,
) -> tuple[HookPointDirections, dict[str, list[Statistics]]]:
    """Fit every category at one hook point from the rows of a split, each sigma bin by itself.

    Args:
        rows: N rows.
        states: their states, (N, K, D).
        space: id of the space that the states are in.
        sigma_edges: K + 1 edges of the sigma bins.
        whole: a further category made of all the others together; none if empty.
        differing: (N, K, T) which tokens of an unsafe row differ, from `differing_tokens`; for tokens "differing".

    Returns:
        The directions, and the statistics of each category and sigma bin.

    Raises:
        SafetySteeringError: a class is empty or was never captured in a bin, or the class means are equal.
    """
    bins = len(sigma_edges) - 1
    bad = where(rows, UNSAFE, split, categories=categories)
    pooled = partial(_side, rows, states.pooled, states, bad, split, categories, replace(settings, tokens=POOLED))
    sides: dict[str, Callable[[], _Side]] = {POOLED: cache(pooled)}
    if settings.tokens == DIFFERING and differing is not None:
        chosen = with_differing(states, differing, bad)
        sides[DIFFERING] = cache(partial(_side, rows, chosen, states, bad, split, categories, settings))
        paired = seen_in(chosen)
    fitted: dict[str, Direction] = {}
    statistics: dict[str, list[Statistics]] = {}
    groups = {name: {name} for name in categories} | ({whole: set(categories)} if whole else {})
    for name, members in groups.items():
        bad = where(rows, UNSAFE, split, categories=members)
        twins = {rows[i].pair for i in bad.tolist()} - {""}
        used = torch.cat([bad, where(rows, SAFE, split, pairs=twins)])
        kind = DIFFERING if DIFFERING in sides and int(paired[bad].sum(dim=0).min()) >= 2 else POOLED
        side = sides[kind]()
        found = [_fit_bin(rows, states.pooled, side, used, k, replace(settings, tokens=kind)) for k in range(bins)]
        parts = [direction for direction, _ in found]
        fitted[name] = Direction(
            **{key: torch.cat([getattr(part, key) for part in parts]) for key in ("direction", *STATISTICS)}
        )
        statistics[name] = [one for _, one in found]
    point = HookPointDirections(
        space=space,
        sigma_edges=torch.tensor(sigma_edges, dtype=torch.float32),
        token_norm=sides[POOLED]().benign.token_norm(),
        categories=fitted,
    )
    return point, statistics


def _side(
    rows: Sequence[Row],
    chosen: torch.Tensor,
    states: States,
    bad: torch.Tensor,
    split: str,
    categories: Sequence[str],
    settings: FitSettings,
) -> _Side:
    """The side of `chosen` states (N, K, D): the pooled ones, or those of the differing tokens."""
    by_token = settings.tokens == DIFFERING
    safe, seen, bins = where(rows, SAFE, split), seen_in(chosen), range(chosen.shape[1])
    benign = Benign(states if by_token else replace(states, tokens=None), safe, seen)
    shared = torch.cat([bad, safe])
    subspaces = [_subspace(rows, chosen, shared[seen[shared, k]], benign, k, categories, settings) for k in bins]
    scatters = None
    if by_token and settings.method == "shrunk_lda":
        scatters = [_scatter(benign, k, settings) for k in bins]
    return _Side(chosen, seen, benign, subspaces, scatters)


def _scatter(benign: Benign, k: int, settings: FitSettings) -> ShrunkScatter:
    """The scatter of benign tokens in sigma bin k."""
    x = benign.some_tokens(k)
    x = x / benign.scales(k) if settings.standardise else x
    return ShrunkScatter(x - x.mean(dim=0), settings.shrinkage)


def _fit_bin(
    rows: Sequence[Row], pooled: torch.Tensor, side: _Side, used: torch.Tensor, k: int, settings: FitSettings
) -> tuple[Direction, Statistics]:
    """The direction of one category in sigma bin k, (1, D), and its statistics. used: (n,) indices of its rows."""
    classes, benign = classes_of(rows, side.states, k, used, side.seen), side.benign
    unsafe, safe = int(classes.unsafe.sum()), int((~classes.unsafe).sum())
    seen = benign.count(k)
    if min(unsafe, safe, seen) < 2:
        raise SafetySteeringError(
            f"Sigma bin {k} has {unsafe} unsafe, {safe} safe and {seen} benign rows; at least 2 of each are "
            "needed. Capture more prompts, or use fewer bins."
        )
    x = _without_length(classes, settings)
    longest = float(x.norm(dim=1).max())
    scales = benign.scales(k) if settings.standardise else None
    x = x if scales is None else x / scales
    generator = torch.Generator().manual_seed(settings.seed)
    drawn = classes.unsafe, classes.groups, classes.videos
    halves = half_contrasts(*drawn, repeats=settings.halves, generator=generator)
    weights = torch.cat([contrast(classes.unsafe)[None], halves if bool(halves.isfinite().all()) else halves[:0]])
    differences = weighted_sums(weights, x)
    if side.scatters is not None:
        directions = side.scatters[k].solve(differences)
    else:
        directions = _apply_method(differences, weights, x, classes.unsafe, settings, side.subspaces[k])
    difference = differences[0]
    if scales is not None:
        difference, directions = difference * scales, directions / scales
    u, norm = directions[0], directions[0].norm()
    if not float(norm) > 0 or float(difference.norm()) <= ROUNDING * longest:
        raise SafetySteeringError("The safe and the unsafe states have the same mean, so there is no direction.")
    u = u / norm * (-1.0 if float(difference @ u) < 0 else 1.0)
    confidence = p_value = None
    if settings.halves:
        confidence = agreement(directions[1:]) if len(directions) > 1 else Confidence(math.nan, math.nan)
    if settings.permutations:
        # differing tokens are chosen by the label, so labels are exchanged among the pooled states
        own = x if settings.tokens == POOLED else classes_of(rows, pooled, k, used, side.seen).x
        p_value = permutation_p_value(own, *drawn, repeats=settings.permutations, generator=generator)
    of_benign = benign.along(u, k)
    center = of_benign[1].mean() if settings.tokens == DIFFERING else None
    direction = measured(u, difference @ u, *of_benign, center=center)
    return direction, Statistics(unsafe, safe, confidence, p_value, settings.tokens)


def _without_length(classes: Classes, settings: FitSettings) -> torch.Tensor:
    if not settings.regress_length:
        return classes.x
    return without_length(classes.x.double(), classes.lengths, classes.unsafe)


def _apply_method(
    differences: torch.Tensor,
    weights: torch.Tensor,
    x: torch.Tensor,
    unsafe: torch.Tensor,
    settings: FitSettings,
    subspace: torch.Tensor | None,
) -> torch.Tensor:
    """The method's directions (m, D) for the class differences (m, D) that the contrasts (m, n) give of x (n, D)."""
    if settings.method == "logistic_probe":
        return torch.stack([logistic_probe(x[w < 0], x[w > 0], settings.inverse_penalty) for w in weights])
    if settings.method == "shrunk_lda":
        return shrunk_lda(differences, x, unsafe, settings.shrinkage)
    if settings.method == "supervised_pca":
        if subspace is None:
            subspace = supervised_pca(x, label_factor(unsafe[:, None], settings.kernel))
        return differences @ subspace @ subspace.T
    return differences


def _subspace(
    rows: Sequence[Row],
    pooled: torch.Tensor,
    used: torch.Tensor,
    benign: Benign,
    k: int,
    categories: Sequence[str],
    settings: FitSettings,
) -> torch.Tensor | None:
    """U (D, c) that the labels of several categories share, from the rows `used` (n,) in sigma bin k.

    None if another method is used or there is one category, whose own rows then make its subspace: the line through
    the difference of its means.
    """
    if settings.method != "supervised_pca" or len(categories) < 2:
        return None
    x = _without_length(classes_of(rows, pooled, k, used, benign.seen), settings)
    x = x / benign.scales(k) if settings.standardise else x
    labels = [
        [row.label == UNSAFE and (settings.labels == "binary" or name in categories_of(row)) for name in categories]
        for row in (rows[i] for i in used.tolist())
    ]
    return supervised_pca(x, label_factor(torch.tensor(labels), settings.kernel), settings.components)
