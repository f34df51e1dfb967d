"""What anchors are fit for: none may be unsafe, and together they must vary along the directions that are carried.

The safety vector itself tells which anchors are unsafe:

    w = (S + lambda I)^-1 v,   z(h) = <h - m, w> / std of <h, w> over the reference,   unsafe if z < -5

v is a category's direction, m and S are the mean and covariance of the reference: the vector's own anchors, or the
anchors under test if it has none; lambda = 0.03 * tr(S) / D. Along v alone captions differ far more by topic than by
safety: the midpoint of the class means would refuse a quarter of the bundled benign anchors, and a bound that passes
them all would catch next to nothing. The solve removes the topics. The bound passes all 1000 bundled anchors at every
layer tried; `docs/portable.md` says what it catches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ..errors import SafetySteeringError
from ..hook_point import HookPoint
from ..language_models.words import Words
from ..linear_algebra import shrunk_solve, spectrum
from ..vectors.vector import SafetyVector

BOUND = 5.0
WORD_BOUND = 8.0  # of single words, which vary more
SHRINKAGE = 0.03
LISTED = 20


@dataclass(frozen=True)
class Suspect:
    """An unsafe anchor: its row, the category with the lowest z, and that z."""

    row: int
    category: str
    score: float


def refuse_unsafe(vector: SafetyVector, hook_point: HookPoint, states: torch.Tensor, texts: Sequence[str]) -> None:
    """Refuse anchors that are unsafe to the vector; states (n, D): of the n texts at `hook_point`.

    Raises:
        SafetySteeringError: some are; it lists them, the most unsafe first.
    """
    own = vector.anchors
    reference = own.states if own is not None and own.hook_point == hook_point else states
    suspects = find_suspects(pooled_directions(vector, hook_point), states, reference)
    if not suspects:
        return
    shown = [f"'{texts[one.row][:120]}' ({one.category})" for one in suspects[:LISTED]]
    more = f" and {len(suspects) - LISTED} more" if len(suspects) > LISTED else ""
    raise SafetySteeringError(
        f"{len(suspects)} of {len(texts)} anchors read as unsafe to the safety vector itself. Alignment is for benign "
        f"captions only: take these out. {'; '.join(shown)}{more}."
    )


def refuse_unsafe_words(vector: SafetyVector, hook_point: HookPoint, words: Words, texts: Sequence[str]) -> None:
    """Refuse anchors with a word that is unsafe to the vector's directions of words.

    Raises:
        SafetySteeringError: some have; it lists the words, the most unsafe first.
    """
    own = vector.anchors
    same = own is not None and own.words is not None and own.hook_point == hook_point
    reference = own.words.states if same and own is not None and own.words is not None else words.states
    directions = {name: category.direction[0] for name, category in vector.at(hook_point).categories.items()}
    suspects = find_suspects(directions, words.states, reference, WORD_BOUND)
    if not suspects:
        return
    keys = words.keys
    shown = []
    for one in suspects[:LISTED]:
        text, start, end = keys[one.row]
        shown.append(f"'{texts[text][start:end][:40]}' in '{texts[text][:120]}' ({one.category})")
    raise SafetySteeringError(
        f"{len(suspects)} of {len(words)} words in the anchors read as unsafe to the safety vector itself. Alignment "
        f"is for benign captions only: take these out. {'; '.join(shown)}."
    )


def pooled_directions(vector: SafetyVector, hook_point: HookPoint) -> dict[str, torch.Tensor]:
    """The directions (D,) of mean states at a hook point: those of the detectors, if the vector has some there."""
    found = vector.detectors
    if found is not None and found.hook_point == hook_point:
        return {name: detector.direction for name, detector in found.categories.items()}
    return {name: category.direction[0] for name, category in vector.at(hook_point).categories.items()}


def find_suspects(
    directions: Mapping[str, torch.Tensor], states: torch.Tensor, reference: torch.Tensor, bound: float = BOUND
) -> list[Suspect]:
    """The unsafe rows of states (n, D), lowest z first; reference (m, D): states of benign texts."""
    scores = anchor_scores(directions, states, reference)
    worst, which = scores.min(dim=1)
    names = list(directions)
    found = [
        Suspect(row, names[int(which[row])], float(worst[row])) for row in (worst < -bound).nonzero()[:, 0].tolist()
    ]
    return sorted(found, key=lambda one: one.score)


def anchor_scores(
    directions: Mapping[str, torch.Tensor], states: torch.Tensor, reference: torch.Tensor
) -> torch.Tensor:
    """z (n, categories) float64 of states (n, D), in the order of the directions (D,)."""
    reference = reference.double()
    mean = reference.mean(dim=0)
    centred = reference - mean
    weights = shrunk_solve(torch.stack(list(directions.values())), centred, SHRINKAGE)
    spread = (centred @ weights.T).std(dim=0)
    z: torch.Tensor = ((states.double() - mean) @ weights.T) / spread
    return z


def coverage(
    directions: Mapping[str, torch.Tensor], source: torch.Tensor, scale: torch.Tensor, penalty: float = 0.0
) -> dict[str, float]:
    """The share, 0 to 1, of each category's direction that the anchors determine.

        coverage = <q, A q>,   A = X^T X (X^T X + lambda I)^-1,   q = (v / scale) / ||v / scale||

    X are the anchors without their mean, divided by scale: the ridge map's shrinkage of q. Along what anchors hardly
    vary by, a map is unknown, however well it predicts more of their kind.

    Args:
        source: the anchors' states (n, D) that the map was fitted on.
        scale: (D,), the channels' scales of the fit.
        penalty: lambda of the fit; at 0 coverage is the share of q within the anchors' span.
    """
    source, scale = source.double(), scale.double()
    found = spectrum((source - source.mean(dim=0)) / scale)
    kept = found.squares / (found.squares + penalty)
    shares = {}
    for name, direction in directions.items():
        q = torch.nn.functional.normalize(direction.double() / scale, dim=0)
        shares[name] = float((q @ found.right).square() @ kept)
    return shares
