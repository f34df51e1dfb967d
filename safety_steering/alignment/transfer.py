"""Transfer of a source vector into another model by an alignment.

Transfer (arXiv 2606.05290) carries each category by itself:

    v_s = gap u_s,   v_t = beta ||v_s|| T(v_s) / ||T(v_s)||,   T(v) short for T(m + v) - T(m)

A vector of words has its directions carried by the map of words, and its detectors by the joint one (`words`). Where an
alignment has neither, what is carried are the detectors, as directions: they are those of whole captions.

The new gap ||v_t|| is an estimate, because the target never reads anything unsafe. Center, spreads and token norm are
measured on the target's states of benign prompts: its own, if the alignment has some, else the anchors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from ..directions.statistics import measured
from ..errors import MismatchError, SafetySteeringError
from ..linear_algebra import outlier_share
from ..vectors.detector import Detectors, make_detector
from ..vectors.vector import Direction, HookPointDirections, SafetyVector, Suggestion, VectorInfo
from .alignment import Alignment
from .rule import benign_rule, words_rule
from .sharpen import sharpened
from .sharpen_words import sharpen_words
from .words import WordAlignment

STEP = "transfer"


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
    words = alignment.words if vector.detectors is not None else None
    if words is None:
        directions = _of_captions(vector, point)
        carried = {name: _carry(name, v, alignment) for name, v in directions.items()}
        norms = alignment.benign.token.double().norm(dim=1)
    else:
        carried = {name: _carry_words(name, _length_of(one), words) for name, one in point.categories.items()}
        norms = words.tokens.double().norm(dim=1)
    target = HookPointDirections(
        space=alignment.target.space,
        sigma_edges=torch.tensor([0.0, 1.0]),
        token_norm=norms.median()[None].float(),
        categories=carried,
    )
    info = _info(vector, alignment, carried)
    detectors = None if words is None else _detectors(vector, alignment, words)
    return SafetyVector({alignment.target.hook_point: target}, info, mix=vector.mix, detectors=detectors)


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


def _length_of(direction: Direction) -> torch.Tensor:
    """v_s (1, D_s) float64."""
    return direction.gap[:1, None].double() * direction.direction[:1].double()


def _of_captions(vector: SafetyVector, point: HookPointDirections) -> dict[str, torch.Tensor]:
    """v_s of each category for whole captions: the detectors', if the directions are those of words."""
    if vector.detectors is None:
        return {name: _length_of(direction) for name, direction in point.categories.items()}
    gaps = vector.info.parameters.get("pooled_gaps", {})
    return {
        name: float(gaps.get(name, point.categories[name].gap[0])) * detector.direction[None].double()
        for name, detector in vector.detectors.categories.items()
    }


def _carry(name: str, v: torch.Tensor, alignment: Alignment) -> Direction:
    u, gap = _unit(name, v, alignment.carry(v)[0], alignment.beta)
    benign = alignment.benign
    return measured(u, gap, benign.pooled.double() @ u, benign.token.double() @ u)


def _carry_words(name: str, v: torch.Tensor, words: WordAlignment) -> Direction:
    u, gap = _unit(name, v, words.carry(v)[0], words.beta)
    along = words.tokens.double() @ u
    return measured(u, gap, along, along)


def _detectors(vector: SafetyVector, alignment: Alignment, words: WordAlignment) -> Detectors:
    assert vector.detectors is not None
    benign = alignment.benign.pooled.double()
    found = {}
    for name, detector in vector.detectors.categories.items():
        v = detector.direction[None].double()
        found[name] = make_detector(_unit(name, v, words.carry_pooled(v)[0], 1.0)[0], benign)
    return Detectors(alignment.target.hook_point, alignment.target.space, found, len(benign), whole_alone=True)


def _unit(name: str, v: torch.Tensor, moved: torch.Tensor, beta: float) -> tuple[torch.Tensor, float]:
    """The unit vector of what v became, and its gap."""
    length, gap = float(moved.norm()), beta * float(v.norm())
    if not (length > 0 and gap > 0 and torch.isfinite(moved).all()):
        raise SafetySteeringError(
            f"The category '{name}' cannot be carried over: its direction has no length in the target. Fit the "
            "alignment with another method or more anchors."
        )
    return moved / length, gap


def _info(vector: SafetyVector, alignment: Alignment, carried: Mapping[str, Direction]) -> VectorInfo:
    source, target, quality = vector.info, alignment.target, alignment.quality
    inside = bool(target.block_counts) or target.hook_point.in_encoder  # of one model, not of a space that many share
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
        **({} if alignment.words is None else {"words": alignment.words.pairs, "words_r2": alignment.words.r2}),
        "outlier_share": {name: outlier_share(direction.direction[0]) for name, direction in carried.items()},
    }
    return VectorInfo(
        kind="transferred",
        gap_kind="estimated",
        family=target.family,
        model_name=target.name if inside else "",
        weight_fingerprint=target.weight_fingerprint if inside else "",
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
    """`transfer`, then `sharpen` on the alignment's benign states unless the shrinkage is 0, then the suggestion.

    It is `words_rule`'s for a vector of words, else `benign_rule`'s.

    Raises:
        SafetySteeringError: as of these three.
    """
    carried = transfer(vector, alignment)
    anchors = alignment.target_anchors if alignment.own_benign else None
    if alignment.words is not None and carried.detectors is not None:
        result = sharpen_words(carried, alignment.benign, alignment.words.tokens, shrinkage or math.inf, anchors)
        suggestion = words_rule(result)
    else:
        found = sharpened(carried, alignment.benign, shrinkage or math.inf, anchors)
        result = found.vector if shrinkage else carried
        suggestion = benign_rule(result, found.lowest)
    return result.with_info(suggestion=replace(suggestion, basis_n=0) if anchors is None else suggestion)
