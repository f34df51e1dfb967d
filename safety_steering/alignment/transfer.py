"""Transfer of a source vector into another model by an alignment, and sharpening of the transferred directions.

Transfer (arXiv 2606.05290) carries each category by itself:

    v_s = gap u_s,   v_t = beta ||v_s|| T(v_s) / ||T(v_s)||,   T(v) short for T(m + v) - T(m)

The new gap ||v_t|| is an estimate, because the target never reads anything unsafe. Center, spreads and token norm are
measured on the target's states of benign prompts: its own, if the alignment has some, else the anchors.

Sharpening weights a transferred direction u by the covariance S of benign states (n, D) of the target:

    w = (S + lambda I)^-1 u,   lambda = shrinkage * tr(S) / D,   w <- w / ||w||,   gap <- gap <u, w>

It is shrunk LDA whose class difference was carried over and whose scatter needs nothing unsafe: channels by which
benign prompts vary anyway (subject, style, length) count for less. The less benign prompts vary along w, the better a
gate separates unsafe ones. Statistics are measured on the same states, so these should be of prompts in the style that
the model is used with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from ..directions.statistics import measured
from ..errors import MismatchError, SafetySteeringError
from ..linear_algebra import outlier_share, shrunk_solve
from ..vectors.vector import Direction, HookPointDirections, SafetyVector, Suggestion, VectorInfo
from .alignment import Alignment, AnchorStates

STEP = "transfer"
MIN_BENIGN = 16


def transfer(vector: SafetyVector, alignment: Alignment) -> SafetyVector:
    """A transferred vector with the source vector's categories and mix, at the alignment's target hook point.

    Raises:
        MismatchError: the vector has no directions in the alignment's source space.
        SafetySteeringError: a category has no gap, or the map takes its direction to zero.

    Example:
        >>> import torch
        >>> from safety_steering import fit_alignment, load_vector, transfer
        >>> from safety_steering.alignment.alignment import Side
        >>> vector = load_vector("vectors/smollm2_135m_portable.safetensors")
        >>> anchors = vector.anchors
        >>> source = Side(anchors.hook_point, vector.at(anchors.hook_point).space)
        >>> target = anchors.states @ torch.randn(576, 32)  # your model's states of anchors.texts
        >>> alignment = fit_alignment(anchors.states, target, source_side=source)
        >>> carried = transfer(vector, alignment)
        >>> carried.info.kind, carried.at("conditioning").width
        ('transferred', 32)
    """
    point = source_point(vector, alignment)
    carried = {name: _carry(name, direction, alignment) for name, direction in point.categories.items()}
    norms = alignment.benign.token.double().norm(dim=1)
    target = HookPointDirections(
        space=alignment.target.space,
        sigma_edges=torch.tensor([0.0, 1.0]),
        token_norm=norms.median()[None].float(),
        categories=carried,
    )
    info = _info(vector, alignment, carried)
    return SafetyVector({alignment.target.hook_point: target}, info, mix=vector.mix)


def source_point(vector: SafetyVector, alignment: Alignment) -> HookPointDirections:
    """The vector's hook point in the alignment's source space; MismatchError if it has none."""
    if vector.info.kind != "source":
        raise MismatchError(
            f"This vector is {vector.info.kind}, for {vector.info.model_name or vector.info.family or 'a model'}. Only "
            "a source vector, made from a language model, can be transferred. Use this one as it is."
        )
    here = [point for point in vector.hook_points.values() if point.space == alignment.source.space]
    if not here:
        spaces = ", ".join(point.space for point in vector.hook_points.values())
        raise MismatchError(
            f"This vector lives in {spaces}; the alignment leads from {alignment.source.space} to "
            f"{alignment.target.space}. Fit the alignment with this very vector."
        )
    if here[0].width != len(alignment.source_mean):
        raise MismatchError(
            f"In {alignment.source.space} this vector is {here[0].width} wide and the alignment "
            f"{len(alignment.source_mean)}. Fit the alignment with this very vector."
        )
    return here[0]


def fit_step(vector: SafetyVector) -> Mapping[str, Any] | None:
    """The transfer's entry in a transferred vector's provenance; None for other vectors."""
    return next((step for step in reversed(vector.info.provenance) if step.get("step") == STEP), None)


def _carry(name: str, direction: Direction, alignment: Alignment) -> Direction:
    v = direction.gap[:1, None].double() * direction.direction[:1].double()
    moved = alignment.carry(v)[0]
    length, gap = float(moved.norm()), alignment.beta * float(v.norm())
    if not (length > 0 and gap > 0 and torch.isfinite(moved).all()):
        raise SafetySteeringError(
            f"The category '{name}' cannot be carried over: its direction has no length in the target. Fit the "
            "alignment with another method or more anchors."
        )
    return _measured(moved / length, gap, alignment.benign)


def _measured(u: torch.Tensor, gap: float, benign: AnchorStates) -> Direction:
    """The unit direction u (D,) with this gap and its statistics on benign states."""
    return measured(u, gap, benign.pooled.double() @ u, benign.token.double() @ u)


def _info(vector: SafetyVector, alignment: Alignment, carried: Mapping[str, Direction]) -> VectorInfo:
    source, target, quality = vector.info, alignment.target, alignment.quality
    step = {
        "step": STEP,
        "source_sha256": vector.sha256,
        "alignment_sha256": alignment.sha256,
        "from": alignment.source.space,
        "to": target.space,
        "method": alignment.settings.method,
        "anchors": alignment.anchors,
        "anchors_sha256": alignment.texts_sha256,
        "undetermined": alignment.undetermined,
        "beta": alignment.beta,
        "r2": quality.r2,
        "retrieval": quality.retrieval,
        "held_out": quality.held_out,
        "complaint": quality.complaint,
        "outlier_share": {name: outlier_share(direction.direction[0]) for name, direction in carried.items()},
    }
    return VectorInfo(
        kind="transferred",
        gap_kind="estimated",
        family=target.family,
        model_name=target.name if target.block_counts else "",
        weight_fingerprint=target.weight_fingerprint if target.block_counts else "",
        block_counts=target.block_counts,
        pooling="mean over editable tokens",
        method=f"{alignment.settings.method} alignment from {alignment.source.name or alignment.source.space}",
        parameters={**alignment.map.chosen, "source_method": source.method},
        counts=source.counts,
        prompts_sha256=source.prompts_sha256,
        suggestion=Suggestion(mix=source.suggestion.mix),
        licence=source.licence,
        provenance=(*source.provenance, step),
    )


def carry_over(vector: SafetyVector, alignment: Alignment, shrinkage: float) -> SafetyVector:
    """`transfer`, then `sharpen` on the alignment's benign states unless the shrinkage is 0."""
    carried = transfer(vector, alignment)
    return sharpen(carried, alignment.benign, shrinkage) if shrinkage else carried


def sharpen(vector: SafetyVector, benign: AnchorStates, shrinkage: float = 1.0) -> SafetyVector:
    """The vector with its directions sharpened on `benign`, the states of n benign prompts at its only hook point.

    shrinkage: of the covariance; the higher, the less a direction turns. `inf` keeps the directions and only measures
    their statistics again.

    Raises:
        SafetySteeringError: the vector has several hook points or sigma bins, there are too few states, they have
            another width, or they do not vary.

    Example:
        >>> import torch
        >>> from safety_steering import fit_alignment, load_vector, sharpen, transfer
        >>> from safety_steering.alignment.alignment import Side
        >>> vector = load_vector("vectors/smollm2_135m_portable.safetensors")
        >>> anchors = vector.anchors
        >>> source = Side(anchors.hook_point, vector.at(anchors.hook_point).space)
        >>> target = anchors.states @ torch.randn(576, 32)  # your model's states of anchors.texts
        >>> alignment = fit_alignment(anchors.states, target, source_side=source)
        >>> sharper = sharpen(transfer(vector, alignment), alignment.benign)
        >>> sharper.info.provenance[-1]["step"]
        'sharpen'
    """
    _check(vector, benign, shrinkage)
    (name, point), *_ = vector.hook_points.items()
    directions = torch.stack([direction.direction[0].double() for direction in point.categories.values()])
    pooled = benign.pooled.double()
    centred = pooled - pooled.mean(dim=0)
    sharper = directions if shrinkage == float("inf") else shrunk_solve(directions, centred, shrinkage)
    sharpened = {
        category: _sharpen(direction, w, benign)
        for (category, direction), w in zip(point.categories.items(), sharper, strict=True)
    }
    norms = benign.token.double().norm(dim=1)
    changed = replace(point, categories=sharpened, token_norm=norms.median()[None].float())
    step = {"step": "sharpen", "shrinkage": shrinkage, "prompts": len(benign.pooled), "of": vector.sha256}
    return replace(vector, hook_points={name: changed}).with_info(provenance=(*vector.info.provenance, step))


def _sharpen(direction: Direction, w: torch.Tensor, benign: AnchorStates) -> Direction:
    u = torch.nn.functional.normalize(direction.direction[0].double(), dim=0)
    w = torch.nn.functional.normalize(w, dim=0)
    return _measured(w, float(direction.gap) * float(u @ w), benign)


def _check(vector: SafetyVector, benign: AnchorStates, shrinkage: float) -> None:
    points = list(vector.hook_points.values())
    if len(points) != 1 or points[0].bins != 1:
        raise SafetySteeringError(
            "This vector has several hook points or sigma bins. Only a transferred vector, which has one, is sharpened."
        )
    rows, width = benign.pooled.shape
    if width != points[0].width:
        raise SafetySteeringError(f"The benign states are {width} wide and the vector {points[0].width}.")
    if rows < MIN_BENIGN:
        raise SafetySteeringError(f"{rows} benign prompts are too few to sharpen by. At least {MIN_BENIGN} are needed.")
    if not shrinkage > 0:
        raise SafetySteeringError(f"The shrinkage is {shrinkage}; give a number above 0, such as 1.")
