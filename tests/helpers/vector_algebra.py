"""Arithmetic on safety vectors: every operation makes a new vector and records its parents in the provenance.

A category stands for the displacement d = gap * direction that moves the unsafe mean onto the safe mean, so that

    a + b       d = d_a + d_b,  gap = ||d||,  direction = d / ||d||
    x * a       d = x d_a                     (a negative x turns the direction round)

The center is linear in d for directions measured on the same benign data: center = <benign mean, d> / ||d||. The
standard deviations of a sum need a covariance that the file does not hold; they are bounded from above by the
triangle inequality.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from safety_steering_pack.safety_steering.errors import MismatchError, SafetySteeringError
from safety_steering_pack.safety_steering.vectors.vector import Direction, HookPointDirections, SafetyVector


def add(a: SafetyVector, b: SafetyVector) -> SafetyVector:
    """The sum of two vectors' displacements, category by category.

    Raises:
        MismatchError: hook points, spaces, widths, sigma bins or categories differ.
        SafetySteeringError: the displacements cancel.
    """
    _check_compatible(a, b)
    if a.categories != b.categories:
        raise MismatchError(
            f"Vectors with the categories ({', '.join(a.categories)}) and ({', '.join(b.categories)}) cannot be added. "
            "Use `merge` to keep different categories side by side."
        )
    points = {
        name: replace(
            point,
            categories={
                category: _sum(direction, b.at(name).categories[category])
                for category, direction in point.categories.items()
            },
        )
        for name, point in a.hook_points.items()
    }
    return _derived(points, "add", a, b)


def scale(a: SafetyVector, factor: float) -> SafetyVector:
    """`factor` times `a`: gaps are multiplied, and a negative factor turns the directions round.

    Raises:
        SafetySteeringError: the factor is 0 or not finite.
    """
    if not math.isfinite(factor) or factor == 0:
        raise SafetySteeringError(f"A vector cannot be scaled by {factor}. To switch steering off use strength 0.")
    sign = math.copysign(1.0, factor)

    def scaled(direction: Direction) -> Direction:
        return replace(
            direction,
            direction=direction.direction * sign,
            gap=direction.gap * abs(factor),
            center=direction.center * sign,
        )

    return _derived(_map(a, scaled), "scale", a, factor=factor)


def merge(a: SafetyVector, b: SafetyVector) -> SafetyVector:
    """One vector with the categories of both, each unchanged.

    Raises:
        MismatchError: hook points, spaces, widths or sigma bins differ, or both have a category of the same name.
    """
    _check_compatible(a, b)
    if shared := set(a.categories) & set(b.categories):
        raise MismatchError(f"Both vectors have the category '{', '.join(sorted(shared))}'. Rename or drop one first.")
    points = {
        name: replace(point, categories={**point.categories, **b.at(name).categories})
        for name, point in a.hook_points.items()
    }
    return _derived(points, "merge", a, b, mix={**a.mix, **b.mix})


def select(a: SafetyVector, *, hook_points: tuple[str, ...] = (), categories: tuple[str, ...] = ()) -> SafetyVector:
    """Only some hook points and categories of a vector (none given: all).

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
    mix = {category: weight for category, weight in a.mix.items() if category in kept}
    suggestion = replace(
        a.info.suggestion,
        mix={},
        hook_points=tuple(name for name in a.info.suggestion.hook_points if name in points),
    )
    return _derived(points, "select", a, mix=mix).with_info(suggestion=suggestion)


def _sum(a: Direction, b: Direction) -> Direction:
    # float64, so that the unit length and the gap do not pick up rounding along a chain of operations
    ga, gb = a.gap.double(), b.gap.double()
    displacement = ga[:, None] * a.direction.double() + gb[:, None] * b.direction.double()
    gap = displacement.norm(dim=1)
    if bool((gap <= 1e-6 * (ga + gb)).any()):
        raise SafetySteeringError("The two vectors cancel each other; their sum has no direction.")

    def weighted(value_a: torch.Tensor, value_b: torch.Tensor) -> torch.Tensor:
        mean: torch.Tensor = (ga * value_a.double() + gb * value_b.double()) / gap
        return mean.float()

    return Direction(
        direction=(displacement / gap[:, None]).float(),
        gap=gap.float(),
        center=weighted(a.center, b.center),
        std_pooled=weighted(a.std_pooled, b.std_pooled),
        std_token=weighted(a.std_token, b.std_token),
    )


def _map(a: SafetyVector, change: Callable[[Direction], Direction]) -> dict[str, HookPointDirections]:
    return {
        name: replace(point, categories={key: change(value) for key, value in point.categories.items()})
        for name, point in a.hook_points.items()
    }


def _check_compatible(a: SafetyVector, b: SafetyVector) -> None:
    if set(a.hook_points) != set(b.hook_points):
        raise MismatchError(
            f"The vectors have different hook points: {', '.join(a.hook_points)} and {', '.join(b.hook_points)}."
        )
    for name, point in a.hook_points.items():
        other = b.at(name)
        if (point.space, point.width) != (other.space, other.width):
            raise MismatchError(
                f"At {name} the vectors live in different spaces: {point.space} ({point.width} wide) and "
                f"{other.space} ({other.width} wide). Only directions of one space can be combined."
            )
        if not torch.equal(point.sigma_edges, other.sigma_edges):
            raise MismatchError(f"At {name} the vectors were fitted on different sigma bins.")


def _derived(
    points: Mapping[str, HookPointDirections],
    operation: str,
    *parents: SafetyVector,
    mix: Mapping[str, float] | None = None,
    **parameters: Any,
) -> SafetyVector:
    """A vector made from `parents`: their provenance, one record more, and nothing measured on the result itself."""
    first = parents[0].info
    record = {"operation": operation, "parents": [parent.sha256 for parent in parents], **parameters}
    inherited: list[Mapping[str, Any]] = []
    for parent in parents:
        inherited += [step for step in parent.info.provenance if step not in inherited]
    estimated = any(parent.info.gap_kind == "estimated" for parent in parents)
    info = replace(
        first,
        gap_kind="estimated" if estimated else first.gap_kind,
        validation_auc=first.validation_auc if operation == "select" else {},
        validated_on=(),
        provenance=(*inherited, record),
    )
    anchors = parents[0].anchors
    kept = anchors if anchors and anchors.hook_point in points else None
    return SafetyVector(points, info, mix=parents[0].mix if mix is None else mix, anchors=kept)
