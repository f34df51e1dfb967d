"""Hook points: the names of places in a model where hidden states are read or changed.

conditioning                     the text states a diffusion model receives
clip_vision                      the image states of an image-to-video model
block.<list>.<index>.<stream>    the output stream of one transformer block
source.<layer>                   the hidden states of a language model
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .errors import MismatchError, SafetySteeringError, shortened

STREAMS = ("image", "text", "audio")
AUTO = "auto"
ALL = "all"

_BLOCK = re.compile(r"block\.(?P<list>[A-Za-z_][A-Za-z0-9_]*)\.(?P<index>\d{1,4})\.(?P<stream>image|text|audio)")
_SOURCE = re.compile(r"source\.(?P<index>\d{1,4})")
_FRACTION = re.compile(r"[01](\.\d+)?|\.\d+")


@dataclass(frozen=True, order=True)
class HookPoint:
    """One parsed hook point. `kind` is conditioning, clip_vision, block or source; the other fields belong to
    block (`list`, `index`, `stream`) and source (`index`)."""

    kind: str
    list: str = ""
    index: int = 0
    stream: str = ""

    def __str__(self) -> str:
        if self.kind == "block":
            return f"block.{self.list}.{self.index}.{self.stream}"
        return f"source.{self.index}" if self.kind == "source" else self.kind


def parse_hook_point(name: str) -> HookPoint:
    """Parse a hook point's name.

    Raises:
        SafetySteeringError: the text is not one of the four forms in this module's docstring.
    """
    if name in ("conditioning", "clip_vision"):
        return HookPoint(name)
    if block := _BLOCK.fullmatch(name):
        return HookPoint("block", block["list"], int(block["index"]), block["stream"])
    if source := _SOURCE.fullmatch(name):
        return HookPoint("source", index=int(source["index"]))
    raise SafetySteeringError(
        f"'{shortened(name)}' is not a hook point. Expected 'conditioning', 'clip_vision', "
        "'block.<list>.<index>.<stream>' (for example block.blocks.15.image) or 'source.<layer>'."
    )


def depth(point: HookPoint, block_counts: Mapping[str, int]) -> float:
    """How deep a block lies in its model, 0 (first block) to 1 (last), counted over all block lists in order.

    `block_counts` maps each list's name to its length, in the order in which the model runs them; a list that it does
    not name runs beside them and has no depth.
    """
    before = 0
    for name, count in block_counts.items():
        if name == point.list:
            return (before + point.index) / max(1, sum(block_counts.values()) - 1)
        before += count
    raise MismatchError(f"The model has no block list '{point.list}'; it has {', '.join(block_counts) or 'none'}.")


def select_hook_points(
    text: str, available: Iterable[str], block_counts: Mapping[str, int], suggested: Iterable[str] = ()
) -> tuple[str, ...]:
    """Which of a vector's hook points a user's choice means, in the vector's order.

    `text` is "auto" (the vector's suggestion; else `conditioning`; else its block nearest half depth), "all", or a
    comma-separated list of hook points and depth fractions ("0.5" is the vector's block nearest half depth).

    Raises:
        MismatchError: the vector does not have what was asked for.
    """
    available = tuple(available)
    wanted = [part.strip() for part in text.split(",") if part.strip()]
    if not wanted:
        raise SafetySteeringError("No hook point was given. Use 'auto', 'all', a name, or a depth such as 0.5.")
    chosen: set[str] = set()
    for part in wanted:
        if part == ALL:
            chosen.update(available)
        elif part == AUTO:
            chosen.update(_automatic(available, block_counts, tuple(suggested)))
        elif _FRACTION.fullmatch(part):
            chosen.add(_nearest(float(part), available, block_counts))
        elif part in available:
            chosen.add(part)
        else:
            raise MismatchError(f"This vector has no hook point '{shortened(part)}'. It has: {_listing(available)}.")
    return tuple(name for name in available if name in chosen)


def _automatic(
    available: tuple[str, ...], block_counts: Mapping[str, int], suggested: tuple[str, ...]
) -> tuple[str, ...]:
    if suggested:
        return suggested
    if "conditioning" in available:
        return ("conditioning",)
    return available if len(available) == 1 else (_nearest(0.5, available, block_counts),)


def _nearest(fraction: float, available: tuple[str, ...], block_counts: Mapping[str, int]) -> str:
    points = [(name, parse_hook_point(name)) for name in available]
    blocks = [(name, point) for name, point in points if point.list in block_counts]
    if not blocks or not 0 <= fraction <= 1:
        raise MismatchError(
            f"A depth ({fraction:g}) must lie between 0 and 1 and needs a vector with block hook points; "
            f"this vector has: {_listing(available)}."
        )
    return min(blocks, key=lambda block: abs(depth(block[1], block_counts) - fraction))[0]


def _listing(names: tuple[str, ...]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
