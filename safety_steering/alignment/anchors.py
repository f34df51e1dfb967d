"""Are anchors benign? The source vector itself says so: no anchor may lie far on the unsafe side of any category.

    w = (S + lambda I)^-1 v,   z(h) = <h - m, w> / std of <h, w> over the reference,   unsafe if z < -5

v is the category's displacement from unsafe to safe, m and S are mean and covariance of the reference: the vector's
own anchors, or those that are checked if it has none; lambda = 0.03 x mean variance. The plain projection will not do:
captions differ by topic along v far more than by what is unsafe, so that the midpoint of the class means refuses a
quarter of the bundled benign anchors, and a bound that passes them all hardly catches anything. Dividing by S takes the
topics out. The bound passes all 1000 bundled anchors at every layer tried; `docs/portable.md` says what it catches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..errors import SafetySteeringError
from ..hook_point import HookPoint
from ..linear_algebra import shrunk_solve, spectrum
from ..vectors.vector import HookPointDirections, SafetyVector
from .fit import Alignment

BOUND = 5.0


SHRINKAGE = 0.03


LISTED = 20


@dataclass(frozen=True)
class Suspect:
    """An anchor that is not benign: its row, the category that says so most strongly, and z there."""

    row: int
    category: str
    score: float


def refuse_unsafe(vector: SafetyVector, hook_point: HookPoint, states: torch.Tensor, texts: Sequence[str]) -> None:
    """Raise SafetySteeringError that lists the anchors that are not benign, if any; states (n, D) at `hook_point`."""
    own = vector.anchors
    reference = own.states if own is not None and own.hook_point == hook_point else states
    suspects = find_suspects(vector.at(hook_point), states, reference)
    if not suspects:
        return
    shown = [f"'{texts[one.row][:120]}' ({one.category})" for one in suspects[:LISTED]]
    more = f" and {len(suspects) - LISTED} more" if len(suspects) > LISTED else ""
    raise SafetySteeringError(
        f"{len(suspects)} of {len(texts)} anchors read as unsafe to the safety vector itself. Alignment is for benign "
        f"captions only: take these out. {'; '.join(shown)}{more}."
    )


def find_suspects(point: HookPointDirections, states: torch.Tensor, reference: torch.Tensor) -> list[Suspect]:
    """The rows of states (n, D) that are not benign, worst first; reference (m, D): states of benign texts."""
    scores = anchor_scores(point, states, reference)
    worst, which = scores.min(dim=1)
    names = list(point.categories)
    found = [
        Suspect(row, names[int(which[row])], float(worst[row])) for row in (worst < -BOUND).nonzero()[:, 0].tolist()
    ]
    return sorted(found, key=lambda one: one.score)


def anchor_scores(point: HookPointDirections, states: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """z (n, categories) float64 of states (n, D), in the order of the point's categories."""
    reference = reference.double()
    mean = reference.mean(dim=0)
    centred = reference - mean
    directions = torch.stack([category.direction[0].double() for category in point.categories.values()])
    weights = shrunk_solve(directions, centred, SHRINKAGE)
    spread = (centred @ weights.T).std(dim=0)
    z: torch.Tensor = ((states.double() - mean) @ weights.T) / spread
    return z


# --- How much of a source direction the anchors can carry: what they hardly vary along, no map can know.
#
#     coverage = <q, A q>,   A = X^T X (X^T X + lambda I)^-1,   q = (v / scale) / ||v / scale||
#
# X are the standardised anchors and lambda the fit's penalty (0 for methods without one: the share inside the anchors'
# span). Anchors that are all alike give a good R2 on their like and a small coverage.


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
