"""Fitting a direction: Supervised PCA with binary labels, which is the difference of the class means.

SPCA (Barshan et al. 2011) maximises tr(U^T X H L H X^T U) with U^T U = I. With two classes H L H has rank one for any
label kernel L, and its solution is

    u = (mu_safe - mu_unsafe) / ||mu_safe - mu_unsafe||

exactly. The methods differ only in what they do to that difference d = mu_safe - mu_unsafe of a category:

    mean_difference   d itself
    supervised_pca    d projected on the subspace that the labels of all categories share (`spca`)
    shrunk_lda        (lambda I + S_w)^-1 d (`lda`)
    logistic_probe    not d, but the axis that predicts the label (`probe`); for comparison

Each can be fitted on standardised channels (`standardise`) and without the prompts' length (`length_regression`). Sums
are float64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ..activations import SAFE, UNSAFE, Activations, Row, States
from ..errors import SafetySteeringError
from ..linear_algebra import whiten
from ..vectors.vector import Direction, HookPointDirections
from .evidence import (
    Confidence,
    agreement,
    auc,
    contrast,
    half_contrasts,
    permutation_p_value,
    separability,
    separability_of,
)
from .methods import KERNELS, label_factor, logistic_probe, supervised_pca, without_length
from .rows import Benign, Classes, categories_of, classes_of, seen_in, weighted_sums, where

__all__ = [
    "METHODS",
    "Evidence",
    "FitSettings",
    "auc",
    "fit_direction",
    "fit_hook_point",
    "fit_states",
    "separability",
    "separability_of",
]


ROUNDING = 1e-12


@dataclass(frozen=True)
class Evidence:
    """What speaks for one direction in one sigma bin. unsafe, safe: rows. None where it was not asked for."""

    unsafe: int
    safe: int
    confidence: Confidence | None
    p_value: float | None


def fit_direction(
    unsafe: torch.Tensor,
    safe: torch.Tensor,
    benign: States,
    *,
    method: str = "mean_difference",
    shrinkage: float = 1.0,
) -> Direction:
    """Fit one category at one hook point, each sigma bin by itself.

    Args:
        unsafe, safe: pooled states (n, K, D) and (m, K, D) of the two classes.
        benign: states (b, K, D) that give center and standard deviations.

    Raises:
        SafetySteeringError: a class is empty or never seen in a bin, or the class means are equal.
    """
    settings = FitSettings(method=method, shrinkage=shrinkage)
    rows = [Row("", UNSAFE, "")] * len(unsafe) + [Row("", SAFE, "")] * len(safe)
    pooled = torch.cat([unsafe, safe])
    every, seen = torch.arange(len(rows)), seen_in(pooled)
    own = Benign(benign, torch.arange(len(benign.pooled)), seen_in(benign.pooled))
    bins = range(unsafe.shape[1])
    return _stack([_fit_bin(classes_of(rows, pooled, k, every, seen), own, k, settings, None)[0] for k in bins])


def fit_hook_point(
    activations: Activations,
    hook_point: str,
    categories: Sequence[str],
    *,
    split: str = "train",
    method: str = "mean_difference",
    shrinkage: float = 1.0,
    whole: str = "",
) -> HookPointDirections:
    """Fit every category at one hook point from the rows of `split`.

    A category's unsafe rows are set against their own safe twins (rows that share `pair`), so that subject, background
    and noise cancel; without twins, against every safe row. `whole` names a further category made of all of them.
    """
    rows, states = activations.rows(), activations.read(hook_point)
    space, edges = activations.source.hook_points[hook_point][0], activations.source.sigma_edges
    settings = FitSettings(method=method, shrinkage=shrinkage)
    return fit_states(rows, states, categories, settings, space=space, sigma_edges=edges, split=split, whole=whole)[0]


def fit_states(
    rows: Sequence[Row],
    states: States,
    categories: Sequence[str],
    settings: FitSettings,
    *,
    space: str,
    sigma_edges: Sequence[float],
    split: str = "train",
    whole: str = "",
) -> tuple[HookPointDirections, dict[str, list[Evidence]]]:
    """As `fit_hook_point`, from states at hand, with every setting; also the evidence per category and sigma bin.

    Raises:
        SafetySteeringError: a class is empty or never seen in a bin, or the class means are equal.
    """
    pooled, seen = states.pooled, seen_in(states.pooled)
    benign = Benign(states, where(rows, SAFE, split), seen)
    bins = range(len(sigma_edges) - 1)
    subspaces = [_subspace(rows, pooled, seen, benign, k, categories, split, settings) for k in bins]
    fitted: dict[str, Direction] = {}
    evidence: dict[str, list[Evidence]] = {}
    for name, members in _chosen(categories, whole).items():
        bad = where(rows, UNSAFE, split, categories=members)
        twins = {rows[i].pair for i in bad.tolist()} - {""}
        used = torch.cat([bad, where(rows, SAFE, split, pairs=twins)])
        found = [_fit_bin(classes_of(rows, pooled, k, used, seen), benign, k, settings, subspaces[k]) for k in bins]
        fitted[name] = _stack([direction for direction, _ in found])
        evidence[name] = [one for _, one in found]
    point = HookPointDirections(
        space=space,
        sigma_edges=torch.tensor(sigma_edges, dtype=torch.float32),
        token_norm=benign.token_norm(),
        categories=fitted,
    )
    return point, evidence


def _fit_bin(
    classes: Classes, benign: Benign, k: int, settings: FitSettings, subspace: torch.Tensor | None
) -> tuple[Direction, Evidence]:
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
    halves = half_contrasts(
        classes.unsafe, classes.groups, classes.videos, repeats=settings.halves, generator=generator
    )
    weights = torch.cat([contrast(classes.unsafe)[None], halves if bool(halves.isfinite().all()) else halves[:0]])
    differences = weighted_sums(weights, x)
    directions = _turned(differences, weights, x, classes.unsafe, settings, subspace)
    difference = differences[0]
    if scales is not None:
        difference, directions = difference * scales, directions / scales
    u, norm = directions[0], directions[0].norm()
    if not float(norm) > 0 or float(difference.norm()) <= ROUNDING * longest:
        raise SafetySteeringError("The safe and the unsafe states have the same mean, so there is no direction.")
    u = u / norm * (-1.0 if float(difference @ u) < 0 else 1.0)
    pooled, tokens = benign.along(u, k)
    direction = Direction(
        direction=u[None].float(),
        gap=(difference @ u)[None].float(),
        center=pooled.mean()[None].float(),
        std_pooled=pooled.std()[None].float(),
        std_token=tokens.std()[None].float(),
    )
    confidence = p_value = None
    if settings.halves:
        confidence = agreement(directions[1:]) if len(directions) > 1 else Confidence(math.nan, math.nan)
    if settings.permutations:
        p_value = permutation_p_value(
            x, classes.unsafe, classes.groups, classes.videos, repeats=settings.permutations, generator=generator
        )
    return direction, Evidence(unsafe, safe, confidence, p_value)


def _without_length(classes: Classes, settings: FitSettings) -> torch.Tensor:
    if not settings.regress_length:
        return classes.x
    return without_length(classes.x.double(), classes.lengths, classes.unsafe)


def _turned(
    differences: torch.Tensor,
    weights: torch.Tensor,
    x: torch.Tensor,
    unsafe: torch.Tensor,
    settings: FitSettings,
    subspace: torch.Tensor | None,
) -> torch.Tensor:
    """What the method makes of the class differences (m, D) that the contrasts (m, n) give of x (n, D)."""
    if settings.method == "logistic_probe":
        return torch.stack([logistic_probe(x[w < 0], x[w > 0], settings.inverse_penalty) for w in weights])
    if settings.method == "shrunk_lda":
        return whiten(differences, x[unsafe].double(), x[~unsafe].double(), settings.shrinkage)
    if settings.method == "supervised_pca":
        if subspace is None:
            subspace = supervised_pca(x, label_factor(unsafe[:, None], settings.kernel))
        return differences @ subspace @ subspace.T
    return differences


def _subspace(
    rows: Sequence[Row],
    pooled: torch.Tensor,
    seen: torch.Tensor,
    benign: Benign,
    k: int,
    categories: Sequence[str],
    split: str,
    settings: FitSettings,
) -> torch.Tensor | None:
    """U (D, c) that the labels of several categories share; None where it is not asked for, or there is one category.

    One category's own rows then make its subspace, which is the line through the difference of its means.
    """
    if settings.method != "supervised_pca" or len(categories) < 2:
        return None
    used = torch.cat([where(rows, UNSAFE, split, categories=categories), where(rows, SAFE, split)])
    kept = [rows[i] for i in used[seen[used, k]].tolist()]
    x = _without_length(classes_of(rows, pooled, k, used, seen), settings)
    x = x / benign.scales(k) if settings.standardise else x
    labels = [
        [row.label == UNSAFE and (settings.labels == "binary" or name in categories_of(row)) for name in categories]
        for row in kept
    ]
    return supervised_pca(x, label_factor(torch.tensor(labels), settings.kernel), settings.components)


def _chosen(categories: Sequence[str], whole: str) -> Mapping[str, set[str]]:
    chosen = {category: {category} for category in categories}
    if whole:
        chosen[whole] = set(categories)
    return chosen


def _stack(bins: Sequence[Direction]) -> Direction:
    names = ("direction", "gap", "center", "std_pooled", "std_token")
    return Direction(**{name: torch.cat([getattr(k, name) for k in bins]) for name in names})


# --- The choices that a fit has.


METHODS = ("mean_difference", "supervised_pca", "shrunk_lda", "logistic_probe")


LABELS = ("binary", "categories")


@dataclass(frozen=True)
class FitSettings:
    """How to fit. Fields beside `method`, `standardise`, `regress_length` belong to one method or to the evidence.

    kernel, labels, components: supervised_pca. labels "binary" is safe against unsafe, one component at most;
        "categories" tells the categories apart. components 0 keeps all.
    shrinkage: shrunk_lda. inverse_penalty: logistic_probe.
    halves, permutations: how many of each the evidence takes, 0 for none. seed: of both.

    Raises:
        SafetySteeringError: a choice is not one of those listed.
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

    def __post_init__(self) -> None:
        for name, known in (("method", METHODS), ("kernel", KERNELS), ("labels", LABELS)):
            if getattr(self, name) not in known:
                raise SafetySteeringError(f"The {name} is '{getattr(self, name)}', expected one of {', '.join(known)}.")
