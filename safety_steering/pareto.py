"""The Pareto front: what nothing else beats in every respect at once."""

from __future__ import annotations

from collections.abc import Sequence


def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether `a` is at least as good as `b` everywhere and better somewhere; lower is better."""
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))


def pareto_front(costs: Sequence[Sequence[float]]) -> list[int]:
    """Indices of the points that no other dominates, in their order; lower is better, equal points all stay."""
    return [i for i, cost in enumerate(costs) if not any(dominates(other, cost) for other in costs)]
