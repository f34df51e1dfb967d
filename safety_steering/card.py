"""A vector's card: what a person should know before using it, as text."""

from __future__ import annotations

from .vectors.mix import format_mix
from .vectors.vector import SafetyVector


def describe(vector: SafetyVector) -> str:
    """The card of a vector, one fact a line; facts that are not known are left out."""
    info = vector.info
    spaces = sorted({point.space for point in vector.hook_points.values()})
    suggestion = info.suggestion
    facts = {
        "for": info.model_name or info.family or spaces[0],
        "kind": f"{info.kind}, gap {info.gap_kind}",
        "categories": ", ".join(vector.categories),
        "mix": format_mix(vector.mix),
        "hook points": _listing(tuple(vector.hook_points)),
        "space": _listing(tuple(spaces)),
        "method": info.method,
        "validation AUC": ", ".join(f"{name} {auc:.2f}" for name, auc in info.validation_auc.items()),
        "suggested": f"strength {suggestion.strength:g} {suggestion.intervention} {_listing(suggestion.hook_points)}",
        "measured on": ", ".join(info.validated_on) or "no model: try it carefully",
        "licence": info.licence,
        "sha256": vector.sha256,
    }
    return "\n".join(f"{name}: {value}" for name, value in facts.items() if value)


def _listing(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
