"""A picture of an alignment's quality: does each held-out anchor find itself?"""

from __future__ import annotations

import textwrap

import numpy as np
from numpy.typing import NDArray

from .alignment.fit import Alignment
from .steering.chart import INK, QUIET, WARNING, as_picture, blank_figure


def draw_alignment(alignment: Alignment) -> NDArray[np.uint8]:
    """Each held-out anchor as a dot: cosine of its predicted state with its own, against its best with another's.

    Returns an RGB picture (H, W, 3), uint8.
    """
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
    for chosen, color, label in ((found, "C2", "recognised"), (~found, WARNING, "taken for another")):
        axes.scatter(other[chosen], own[chosen], s=12, color=color, alpha=0.7, label=label, linewidths=0)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_xlabel("closest other caption (cosine)", fontsize=9, color=INK)
    axes.set_ylabel("the caption itself (cosine)", fontsize=9, color=INK)
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    axes.tick_params(labelsize=8, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    return as_picture(figure)
