"""What people should know of an alignment, as text."""

from __future__ import annotations

from collections.abc import Iterator

from ..standardise import outlier_share
from ..vectors.vector import SafetyVector
from .fit import Alignment
from .transfer import transfer


def describe_alignment(alignment: Alignment) -> str:
    """The alignment's card, one fact a line; the first is a warning if it is too poor to trust."""
    return "\n".join(_lines(alignment))


def report_alignment(alignment: Alignment, vector: SafetyVector) -> str:
    """The card, and what becomes of a vector's categories."""
    carried = transfer(vector, alignment).at(alignment.target.hook_point)
    covered = alignment.about.get("coverage", {})
    lines = [*_lines(alignment), "carried over:"]
    for name, direction in carried.categories.items():
        share = outlier_share(direction.direction[0])
        known = f"{covered[name]:.0%} of it covered by the anchors, " if name in covered else ""
        spread = float(direction.gap[0] / direction.std_pooled[0].clamp_min(1e-12))
        lines.append(f"  {name}: {known}top-3-channel share {share:.0%}, gap {spread:.1f} benign standard deviations")
    return "\n".join(lines)


def _lines(alignment: Alignment) -> Iterator[str]:
    quality, settings = alignment.quality, alignment.settings
    chosen = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in alignment.map.chosen.items())
    if complaint := quality.complaint:
        yield f"WARNING: this fit is too poor to trust: {complaint}. Use more anchors or another target."
    yield f"from: {alignment.source.space} ({len(alignment.source_mean)} wide)"
    yield f"to: {alignment.target.space} ({len(alignment.target_mean)} wide) at {alignment.target.hook_point}"
    yield f"method: {settings.method}" + (f" ({chosen})" if chosen else "")
    yield f"anchors: {alignment.anchors}, all benign"
    yield (
        f"on {quality.held_out} held-out anchors: R2 {quality.r2:.3f} (0 knows nothing, 1 is perfect), "
        f"retrieval@1 {quality.retrieval:.1%} (chance {1 / quality.held_out:.1%})"
    )
    yield f"beta: {alignment.beta:.4g} (size of the target's states against the source's)"
    if alignment.undetermined:
        yield (
            f"note: {alignment.anchors} anchors for {len(alignment.source_mean)} source channels: what a direction has "
            "outside of the anchors' span is not carried over."
        )
    if alignment.own_benign is not None:
        yield f"center and spreads: measured on {len(alignment.own_benign.pooled)} benign prompts of your own"
    for note in alignment.about.get("notes", ()):
        yield f"note: {note}"
    yield f"sha256: {alignment.sha256}"
