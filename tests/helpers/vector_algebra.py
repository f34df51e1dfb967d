"""A part of a safety vector, for tests that need fewer hook points or categories."""

from __future__ import annotations

from dataclasses import replace

from safety_steering_pack.safety_steering.errors import MismatchError
from safety_steering_pack.safety_steering.vectors.vector import SafetyVector


def select(a: SafetyVector, *, hook_points: tuple[str, ...] = (), categories: tuple[str, ...] = ()) -> SafetyVector:
    """Only some hook points and categories of a vector (none given: all), with a record of its parent.

    Raises:
        MismatchError: the vector does not have one that was asked for.
    """
    if unknown := set(categories) - set(a.categories):
        raise MismatchError(
            f"This vector has no category '{', '.join(sorted(unknown))}', only: {', '.join(a.categories)}."
        )
    kept = categories or a.categories
    points = {
        name: replace(a.at(name), categories={category: a.at(name).categories[category] for category in kept})
        for name in hook_points or tuple(a.hook_points)
    }
    record = {"operation": "select", "parents": [a.sha256]}
    suggested = tuple(name for name in a.info.suggestion.hook_points if name in points)
    return SafetyVector(
        points,
        replace(
            a.info,
            suggestion=replace(a.info.suggestion, mix={}, hook_points=suggested),
            validated_on=(),
            provenance=(*a.info.provenance, record),
        ),
        mix={category: weight for category, weight in a.mix.items() if category in kept},
        anchors=a.anchors if a.anchors and a.anchors.hook_point in points else None,
    )
