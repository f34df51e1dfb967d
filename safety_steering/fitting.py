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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from .activations import SAFE, UNSAFE, Activations, Row, States
from .errors import SafetySteeringError
from .evidence import Confidence, Fit, bootstrap_confidence, contrast, permutation_p_value
from .fit_settings import METHODS, FitSettings
from .lda import whiten
from .length_regression import without_length
from .probe import logistic_probe
from .selection import Classes, categories_of, classes_of, seen_rows, where
from .separability import auc, separability, separability_of
from .spca import label_factor, supervised_pca
from .standardise import channel_scales
from .vector import Direction, HookPointDirections

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
    bins = range(unsafe.shape[1])
    return _stack([_fit_bin(classes_of(rows, pooled, k), benign, k, settings, None)[0] for k in bins])


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
    benign = where(rows, SAFE, split)
    benign_states = States(states.pooled[benign], states.token[benign])
    bins = range(len(sigma_edges) - 1)
    subspaces = [_subspace(rows, states.pooled, benign_states, k, categories, split, settings) for k in bins]
    fitted: dict[str, Direction] = {}
    evidence: dict[str, list[Evidence]] = {}
    for name, members in _chosen(categories, whole).items():
        bad = where(rows, UNSAFE, split, categories=members)
        twins = {rows[i].pair for i in bad.tolist()} - {""}
        used = torch.cat([bad, where(rows, SAFE, split, pairs=twins)])
        own_rows, pooled = [rows[i] for i in used.tolist()], states.pooled[used]
        found = [_fit_bin(classes_of(own_rows, pooled, k), benign_states, k, settings, subspaces[k]) for k in bins]
        fitted[name] = _stack([direction for direction, _ in found])
        evidence[name] = [one for _, one in found]
    norms: torch.Tensor = torch.linalg.vector_norm(benign_states.token.double(), dim=2)
    point = HookPointDirections(
        space=space,
        sigma_edges=torch.tensor(sigma_edges, dtype=torch.float32),
        token_norm=norms.nanmedian(dim=0).values.float(),
        categories=fitted,
    )
    return point, evidence


def _fit_bin(
    classes: Classes, benign: States, k: int, settings: FitSettings, subspace: torch.Tensor | None
) -> tuple[Direction, Evidence]:
    unsafe, safe = int(classes.unsafe.sum()), int((~classes.unsafe).sum())
    pooled, tokens = seen_rows(benign.pooled[:, k]), seen_rows(benign.token[:, k])
    if min(unsafe, safe, len(pooled)) < 2:
        raise SafetySteeringError(
            f"Sigma bin {k} has {unsafe} unsafe, {safe} safe and {len(pooled)} benign rows; at least 2 of each are "
            "needed. Capture more prompts, or use fewer bins."
        )
    classes = _prepared(classes, settings)
    scales = channel_scales(pooled) if settings.standardise else None
    weights = contrast(classes.unsafe)
    fit = _fit_of(classes, settings, scales, subspace)
    difference, u = weights @ classes.x, fit(weights[None])[0]
    norm = u.norm()
    if not float(norm) > 0 or float(difference.norm()) <= ROUNDING * float(classes.x.norm(dim=1).max()):
        raise SafetySteeringError("The safe and the unsafe states have the same mean, so there is no direction.")
    u = u / norm * (-1.0 if float(difference @ u) < 0 else 1.0)
    direction = Direction(
        direction=u[None].float(),
        gap=(difference @ u)[None].float(),
        center=(pooled @ u).mean()[None].float(),
        std_pooled=(pooled @ u).std()[None].float(),
        std_token=(tokens @ u).std()[None].float(),
    )
    return direction, _evidence(classes, fit, scales, settings)


def _prepared(classes: Classes, settings: FitSettings) -> Classes:
    if not settings.regress_length:
        return classes
    return replace(classes, x=without_length(classes.x, classes.lengths, classes.unsafe))


def _fit_of(classes: Classes, settings: FitSettings, scales: torch.Tensor | None, subspace: torch.Tensor | None) -> Fit:
    """The method as a function of contrast weights (m, n), giving directions (m, D) in the model's own channels."""
    unsafe = classes.unsafe
    x = classes.x if scales is None else classes.x / scales
    if settings.method == "supervised_pca" and subspace is None:
        subspace = supervised_pca(x, label_factor(unsafe[:, None], settings.kernel))

    def fit(weights: torch.Tensor) -> torch.Tensor:
        if settings.method == "logistic_probe":
            probes = [logistic_probe(x[w < 0], x[w > 0], settings.inverse_penalty) for w in weights]
            directions = torch.stack(probes)
        else:
            directions = weights @ x
        if settings.method == "shrunk_lda":
            directions = whiten(directions, x[unsafe], x[~unsafe], settings.shrinkage)
        elif subspace is not None:
            directions = directions @ subspace @ subspace.T
        return directions if scales is None else directions / scales

    return fit


def _evidence(classes: Classes, fit: Fit, scales: torch.Tensor | None, settings: FitSettings) -> Evidence:
    unsafe, groups = classes.unsafe, classes.groups
    generator = torch.Generator().manual_seed(settings.seed)
    confidence = p_value = None
    if settings.halves:
        confidence = bootstrap_confidence(fit, unsafe, groups, repeats=settings.halves, generator=generator)
    if settings.permutations:
        x = classes.x if scales is None else classes.x / scales
        p_value = permutation_p_value(x, unsafe, groups, repeats=settings.permutations, generator=generator)
    return Evidence(int(unsafe.sum()), int((~unsafe).sum()), confidence, p_value)


def _subspace(
    rows: Sequence[Row],
    pooled: torch.Tensor,
    benign: States,
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
    chosen = [rows[i] for i in used.tolist()]
    seen = ~pooled[used, k].isnan().any(dim=1)
    kept = [row for row, isseen_rows in zip(chosen, seen.tolist(), strict=True) if isseen_rows]
    classes = _prepared(classes_of(chosen, pooled[used], k), settings)
    x = classes.x / channel_scales(seen_rows(benign.pooled[:, k])) if settings.standardise else classes.x
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
