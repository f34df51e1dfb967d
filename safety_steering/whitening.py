"""Sharpening a carried direction by the benign states of the model that it was carried to.

    w = (S + shrinkage * tr(S) / D * I)^-1 u,   w <- w / ||w||,   gap <- gap <u, w>

with S (D, D) the covariance of benign states. It is shrunk LDA in which the difference of the class means was carried
over from elsewhere and the scatter needs nothing unsafe: what benign prompts vary by anyway (subject, style, length)
counts for less. The less it varies along w, the better a gate tells what is unsafe. Center and spreads are measured on
the same states, so they should be of prompts in the style that the model is used with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from .alignment.fit import Alignment, AnchorStates
from .alignment.transfer import measured, transfer
from .errors import SafetySteeringError
from .linear_algebra import spectrum
from .vectors.vector import Direction, HookPointDirections, SafetyVector

LEAST = 16


def carry_over(vector: SafetyVector, alignment: Alignment, shrinkage: float) -> SafetyVector:
    """`transfer`, then `sharpen` on the alignment's benign states; shrinkage 0 leaves the carried directions alone."""
    carried = transfer(vector, alignment)
    return sharpen(carried, alignment.benign, shrinkage) if shrinkage else carried


def whitened(directions: torch.Tensor, states: torch.Tensor, shrinkage: float) -> torch.Tensor:
    """(S + shrinkage * tr(S) / D * I)^-1 applied to each of `directions` (c, D); S of states (n, D). float64.

    Along the states' own axes by their variance, outside of them by the ridge alone: with fewer states than channels no
    D x D matrix is made.
    """
    directions = directions.double()
    found = spectrum(states.double() - states.double().mean(dim=0))
    freedom = max(1, len(states) - 1)
    ridge = shrinkage * float(found.squares.sum()) / freedom / states.shape[1]
    axes = found.right
    inside = directions @ axes
    along = (inside / (found.squares / freedom + ridge)) @ axes.T
    solved: torch.Tensor = along + (directions - inside @ axes.T) / ridge
    return solved


def sharpen(vector: SafetyVector, benign: AnchorStates, shrinkage: float = 1.0) -> SafetyVector:
    """The vector with its directions sharpened on `benign`, states of n benign prompts at its only hook point.

    shrinkage: of the covariance; the higher, the nearer the directions stay to what they were. `inf` leaves them and
    only measures center and spreads anew.

    Raises:
        SafetySteeringError: the vector has several hook points or sigma bins, there are too few states, or another
            width than its own.
    """
    _check(vector, benign, shrinkage)
    (name, point), *_ = vector.hook_points.items()
    directions = torch.stack([direction.direction[0].double() for direction in point.categories.values()])
    sharper = directions if shrinkage == float("inf") else whitened(directions, benign.pooled, shrinkage)
    sharpened = {
        category: _sharpen(direction, w, benign)
        for (category, direction), w in zip(point.categories.items(), sharper, strict=True)
    }
    norms = benign.token.double().norm(dim=1)
    changed = replace(point, categories=sharpened, token_norm=norms.median()[None].float())
    step = {"step": "sharpen", "shrinkage": shrinkage, "prompts": len(benign.pooled), "of": vector.sha256}
    points: Mapping[str, HookPointDirections] = {name: changed}
    return replace(vector, hook_points=points).with_info(provenance=(*vector.info.provenance, step))


def _sharpen(direction: Direction, w: torch.Tensor, benign: AnchorStates) -> Direction:
    u = torch.nn.functional.normalize(direction.direction[0].double(), dim=0)
    w = torch.nn.functional.normalize(w, dim=0)
    return measured(w, float(direction.gap) * float(u @ w), benign)


def _check(vector: SafetyVector, benign: AnchorStates, shrinkage: float) -> None:
    points = list(vector.hook_points.values())
    if len(points) != 1 or points[0].bins != 1:
        raise SafetySteeringError(
            "Only a vector of one hook point and one sigma bin, as a transfer makes, is sharpened."
        )
    rows, width = benign.pooled.shape
    if width != points[0].width:
        raise SafetySteeringError(f"The benign states are {width} wide and the vector {points[0].width}.")
    if rows < LEAST:
        raise SafetySteeringError(f"{rows} benign prompts are too few to sharpen by; {LEAST} are the least.")
    if not shrinkage > 0:
        raise SafetySteeringError(f"The shrinkage is {shrinkage}; give a number above 0, such as 1.")
