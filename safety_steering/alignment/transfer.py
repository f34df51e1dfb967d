"""Transfer: a source vector's directions carried into another model by an alignment.

    v_s = gap u_s,   v_t = beta ||v_s|| T(v_s) / ||T(v_s)||,   T(v) short for T(m + v) - T(m)

(arXiv 2606.05290.) Each category is carried by itself. The new gap ||v_t|| is an estimate: nothing unsafe was ever
shown to the target. Center, spreads and token norm are measured on the target's states of benign prompts: its own, if
the alignment has such, else the anchors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..errors import MismatchError, SafetySteeringError
from ..standardise import outlier_share
from ..vectors.vector import Direction, HookPointDirections, SafetyVector, Suggestion, VectorInfo
from .fit import Alignment, AnchorStates

STEP = "transfer"


def transfer(vector: SafetyVector, alignment: Alignment) -> SafetyVector:
    """A transferred vector with the source vector's categories and mix, at the alignment's target hook point.

    Raises:
        MismatchError: the vector does not live in the space that the alignment leads from.
        SafetySteeringError: a category has no gap, or the map takes its direction to nothing.
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
    """The hook point of `vector` that the alignment leads from; MismatchError if it has none."""
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
    """What the provenance says of the alignment that a transferred vector came by; None for other vectors."""
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
    return measured(moved / length, gap, alignment.benign)


def measured(u: torch.Tensor, gap: float, anchors: AnchorStates) -> Direction:
    """The unit direction u (D,) with this gap, and what benign anchors say of it."""
    pooled, token = anchors.pooled.double() @ u, anchors.token.double() @ u
    return Direction(
        direction=u[None].float(),
        gap=torch.tensor([gap]),
        center=pooled.mean()[None].float(),
        std_pooled=pooled.std()[None].float(),
        std_token=token.std()[None].float(),
    )


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
