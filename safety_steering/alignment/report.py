"""The report of an alignment for people: a card of its facts, and a chart of its quality."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..linear_algebra import outlier_share
from ..pictures import INK, QUIET, WARNING, as_picture, blank_figure
from ..vectors.vector import SafetyVector
from .alignment import Alignment
from .quality import Quality
from .transfer import transfer

GOOD_RETRIEVAL = 0.8
SHOWN_HASH = 12  # characters


def describe_alignment(alignment: Alignment) -> str:
    """The alignment's card: a verdict, then one fact a line."""
    return "\n".join([*_lines(alignment), _hash(alignment)])


def report_alignment(alignment: Alignment, vector: SafetyVector) -> str:
    """The card, with the statistics of a vector's categories after the transfer."""
    carried = transfer(vector, alignment).at(alignment.target.hook_point)
    covered = alignment.about.get("coverage", {})
    lines = [*_lines(alignment), "carried over:"]
    for name, direction in carried.categories.items():
        share = outlier_share(direction.direction[0])
        known = f"{covered[name]:.0%} covered by the anchors, " if name in covered else ""
        spread = float(direction.gap[0] / direction.std_pooled[0].clamp_min(1e-12))
        lines.append(f"  {name}: {known}top-3-channel share {share:.0%}, gap {spread:.1f} benign standard deviations")
    return "\n".join([*lines, _hash(alignment)])


def verdict(quality: Quality) -> str:
    """How good a fit is, in a sentence."""
    found = f"{quality.retrieval:.0%} of kept-aside captions recognised"
    if quality.complaint:
        return f"Poor fit, too poor to trust: {quality.complaint}. Use more anchors or another target."
    if quality.retrieval < GOOD_RETRIEVAL:
        return f"Fair fit: {found}. More captions, of more kinds, make it better."
    return f"Good fit: {found}."


def _lines(alignment: Alignment) -> Iterator[str]:
    quality, settings, own = alignment.quality, alignment.settings, alignment.own_benign
    chosen = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in alignment.map.chosen.items())
    yield verdict(quality)
    if own is None:
        yield (
            "No harmless prompts of your own: in your style the gate may never open. Connect some to benign_prompts, "
            "400 are good."
        )
    else:
        yield f"center, spreads and threshold: from {len(own.pooled)} harmless prompts of your own"
    for note in alignment.about.get("notes", ()):
        yield f"note: {note}"
    yield f"from: {alignment.source.space} ({len(alignment.source_mean)} wide)"
    yield f"to: {alignment.target.space} ({len(alignment.target_mean)} wide) at {alignment.target.hook_point}"
    yield f"method: {settings.method}" + (f" ({chosen})" if chosen else "")
    yield f"anchors: {alignment.anchors}, all benign"
    yield (
        f"on {quality.held_out} held-out anchors: R2 {quality.r2:.3f} (0 is no better than the mean, 1 is perfect), "
        f"retrieval@1 {quality.retrieval:.1%} (chance {1 / quality.held_out:.1%})"
    )
    if alignment.words is not None:
        yield f"words: {alignment.words.pairs} aligned, R2 {alignment.words.r2:.3f} on held-out ones"
    yield f"beta: {alignment.beta:.4g} (size of the target's states relative to the source's)"
    if alignment.undetermined:
        yield (
            f"note: {alignment.anchors} anchors for {len(alignment.source_mean)} source channels: the part of a "
            "direction outside of the anchors' span is not carried over."
        )


def _hash(alignment: Alignment) -> str:
    return f"sha256: {alignment.sha256[:SHOWN_HASH]}"


def draw_alignment(alignment: Alignment) -> NDArray[np.uint8]:
    """A chart of `Quality.own` over `Quality.other`, one dot a held-out anchor; an RGB picture (H, W, 3), uint8."""
    quality = alignment.quality
    own, other = quality.own.numpy(), quality.other.numpy()
    found = own > other
    figure = blank_figure(5.4)
    axes = figure.subplots()
    title = f"{alignment.source.space} to {alignment.target.space}"
    facts = f"R2 {quality.r2:.2f}, {quality.retrieval:.0%} of {quality.held_out} recognised"
    lines = [title, facts, *([f"too poor to trust: {quality.complaint}"] if quality.complaint else [])]
    text = "\n".join(textwrap.fill(line, 62) for line in lines)
    figure.suptitle(text, fontsize=10, color=WARNING if quality.complaint else INK)
    low, high = float(min(own.min(), other.min())) - 0.05, 1.0
    axes.plot([low, high], [low, high], color=QUIET, linewidth=0.8, linestyle=":")
    for chosen, color, label in ((found, "C2", "recognised"), (~found, WARNING, "not recognised")):
        axes.scatter(other[chosen], own[chosen], s=12, color=color, alpha=0.7, label=label, linewidths=0)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_xlabel("closest other caption (cosine)", fontsize=9, color=INK)
    axes.set_ylabel("the caption itself (cosine)", fontsize=9, color=INK)
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    axes.tick_params(labelsize=8, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    return as_picture(figure)
