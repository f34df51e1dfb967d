"""Fitting a direction: Supervised PCA with binary labels, which is the difference of the class means.

SPCA (Barshan et al. 2011) maximises tr(U^T X H L H X^T U) with U^T U = I. With two classes H L H has rank one for any
label kernel L, and its solution is

    u = (mu_safe - mu_unsafe) / ||mu_safe - mu_unsafe||

exactly. `shrunk_lda` is the remedy where a few channels of large variance dominate: (lambda I + S_w)^-1 of the same
difference, S_w the pooled within-class covariance and lambda its mean eigenvalue times `shrinkage`. Sums are float64.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

import torch

from .activations import SAFE, UNSAFE, Activations, Row, States
from .errors import SafetySteeringError
from .vector import Direction, HookPointDirections

METHODS = ("mean_difference", "shrunk_lda")


def auc(positive: torch.Tensor, negative: torch.Tensor) -> float:
    """Probability that a value of `positive` exceeds one of `negative`, ties counting half (area under the ROC)."""
    _, order = torch.unique(torch.cat([positive, negative]).double(), return_inverse=True)
    counts = order.bincount().double()
    middle = counts.cumsum(0) - (counts - 1) / 2
    total = middle[order[: len(positive)]].sum()
    n, m = len(positive), len(negative)
    return float((total - n * (n + 1) / 2) / (n * m))


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
    bins = unsafe.shape[1]
    return _stack([_fit_bin(unsafe[:, k], safe[:, k], benign, k, method, shrinkage) for k in range(bins)])


def _fit_bin(
    unsafe: torch.Tensor, safe: torch.Tensor, benign: States, k: int, method: str, shrinkage: float
) -> Direction:
    a, b = _seen(unsafe), _seen(safe)
    pooled, tokens = _seen(benign.pooled[:, k]), _seen(benign.token[:, k])
    if min(len(a), len(b), len(pooled)) < 2:
        raise SafetySteeringError(
            f"Sigma bin {k} has {len(a)} unsafe, {len(b)} safe and {len(pooled)} benign rows; at least 2 of each are "
            "needed. Capture more prompts, or use fewer bins."
        )
    difference = b.mean(0) - a.mean(0)
    u = difference if method == "mean_difference" else _whiten(difference, a, b, shrinkage)
    norm = u.norm()
    if not float(norm) > 0:
        raise SafetySteeringError("The safe and the unsafe states have the same mean, so there is no direction.")
    u = u / norm
    return Direction(
        direction=u[None].float(),
        gap=(difference @ u)[None].float(),
        center=(pooled @ u).mean()[None].float(),
        std_pooled=(pooled @ u).std()[None].float(),
        std_token=(tokens @ u).std()[None].float(),
    )


def _whiten(difference: torch.Tensor, a: torch.Tensor, b: torch.Tensor, shrinkage: float) -> torch.Tensor:
    centred = torch.cat([a - a.mean(0), b - b.mean(0)])
    scatter = centred.T @ centred / (len(centred) - 2)
    ridge = shrinkage * scatter.diagonal().mean()
    identity = torch.eye(len(difference), dtype=difference.dtype)
    solved: torch.Tensor = torch.linalg.solve(scatter + ridge * identity, difference)
    return solved


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
    chosen = {category: {category} for category in categories}
    if whole:
        chosen[whole] = set(categories)
    benign = _where(rows, SAFE, split)
    benign_states = States(states.pooled[benign], states.token[benign])
    fitted = {}
    for name, members in chosen.items():
        bad = _where(rows, UNSAFE, split, categories=members)
        twins = {rows[i].pair for i in bad.tolist()} - {""}
        good = _where(rows, SAFE, split, pairs=twins)
        fitted[name] = fit_direction(
            states.pooled[bad], states.pooled[good], benign_states, method=method, shrinkage=shrinkage
        )
    norms: torch.Tensor = torch.linalg.vector_norm(benign_states.token.double(), dim=2)
    return HookPointDirections(
        space=activations.source.hook_points[hook_point][0],
        sigma_edges=torch.tensor(activations.source.sigma_edges, dtype=torch.float32),
        token_norm=norms.nanmedian(dim=0).values.float(),
        categories=fitted,
    )


def separability(
    activations: Activations, hook_point: str, point: HookPointDirections, *, split: str = "validation"
) -> dict[str, list[float]]:
    """AUC with which each direction tells safe from unsafe rows of a split it was not fitted on, per sigma bin."""
    rows, states = activations.rows(), activations.read(hook_point)
    safe = _where(rows, SAFE, split)
    known = {row.category for row in rows}
    result: dict[str, list[float]] = {}
    for name, direction in point.categories.items():
        unsafe = _where(rows, UNSAFE, split, categories={name} if name in known else known)
        result[name] = []
        for k in range(point.bins):
            u = direction.direction[k].double()
            result[name].append(auc(_seen(states.pooled[safe, k]) @ u, _seen(states.pooled[unsafe, k]) @ u))
    return result


def _where(
    rows: Sequence[Row], label: str, split: str, *, categories: Container[str] = (), pairs: Container[str] = ()
) -> torch.Tensor:
    """Indices of the rows of a label and split; of some categories or pairs only, where these are given."""
    return torch.tensor(
        [
            i
            for i, row in enumerate(rows)
            if row.label == label
            and row.split == split
            and (not categories or row.category in categories)
            and (not pairs or row.pair in pairs)
        ],
        dtype=torch.long,
    )


def _seen(states: torch.Tensor) -> torch.Tensor:
    """The rows that were seen, in float64."""
    return states[~states.isnan().any(dim=1)].double()


def _stack(bins: Sequence[Direction]) -> Direction:
    names = ("direction", "gap", "center", "std_pooled", "std_token")
    return Direction(**{name: torch.cat([getattr(k, name) for k in bins]) for name in names})
