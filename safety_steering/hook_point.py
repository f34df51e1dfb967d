"""Hook points: where in a model hidden states are read or changed.

conditioning                               the text states a diffusion model receives
clip_vision                                the image states of an image-to-video model
block.<list>.<index>.<stream>              the output stream of one transformer block
cross_attention.<list>.<index>.<stream>    what one block reads from the text, before it is added to the stream
encoder.<layer>                            inside a model's own text encoder, after one of its layers (the first is 1)
source.<layer>                             the hidden states of a language model
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from .errors import MismatchError, SafetySteeringError, shortened

STREAMS = ("image", "text", "audio")
AUTO = "auto"
ALL = "all"
CROSS_ATTENTION = "cross_attention"

_NAME = re.compile(
    r"conditioning|clip_vision|source\.(?P<layer>0|[1-9][0-9]{0,3})|encoder\.(?P<inner>[1-9][0-9]{0,3})|"
    r"(block|cross_attention)\.(?P<list>[A-Za-z_][A-Za-z0-9_]*)\.(?P<block>0|[1-9][0-9]{0,3})\.(?P<stream>image|text|audio)"
)
_FRACTION = re.compile(r"[01](\.\d+)?|\.\d+")


class HookPoint(str):
    """A hook point: its name, parsed once. It equals its name, so that it can be looked up and stored as that.

    kind: conditioning, clip_vision, block, cross_attention, encoder or source. list, stream: of a block, else empty.
    number: a block's index in its list, or a language model's layer.

    Raises:
        SafetySteeringError: the name is not one of the six forms in this module's docstring.
    """

    __slots__ = ("kind", "list", "number", "stream")
    kind: str
    list: str
    number: int
    stream: str

    def __new__(cls, name: str) -> HookPoint:
        if isinstance(name, HookPoint):
            return name
        found = _NAME.fullmatch(name)
        if found is None:
            raise SafetySteeringError(
                f"'{shortened(name)}' is not a hook point. Expected 'conditioning', 'clip_vision', "
                "'block.<list>.<index>.<stream>' (for example block.blocks.15.image), "
                "'cross_attention.<list>.<index>.<stream>', 'encoder.<layer>' or 'source.<layer>'."
            )
        point = super().__new__(cls, name)
        point.kind = name.partition(".")[0]
        point.list, point.stream = found["list"] or "", found["stream"] or ""
        point.number = int(found["layer"] or found["inner"] or found["block"] or 0)
        return point

    @property
    def is_block(self) -> bool:
        """Whether it is a block's output."""
        return self.kind == "block"

    @property
    def in_encoder(self) -> bool:
        """Whether it lies inside the text encoder, which reads the prompt before the model is called."""
        return self.kind == "encoder"

    @property
    def is_text(self) -> bool:
        """Whether its tokens are words of the prompt."""
        return self.kind in ("conditioning", "encoder") or self.stream == "text"

    @property
    def in_blocks(self) -> bool:
        """Whether it lies inside of the model, in a block or at its output, and is no argument of the model call."""
        return self.kind in ("block", CROSS_ATTENTION)


def depth(point: HookPoint, block_counts: Mapping[str, int]) -> float:
    """How deep a block lies in its model, 0 (first block) to 1 (last), counted over all block lists in order.

    `block_counts` maps each list's name to its length, in the order in which the model runs them; a list that it does
    not name runs beside them and has no depth.
    """
    before = 0
    for name, count in block_counts.items():
        if name == point.list:
            return (before + point.number) / max(1, sum(block_counts.values()) - 1)
        before += count
    raise MismatchError(f"The model has no block list '{point.list}'; it has {', '.join(block_counts) or 'none'}.")


def select_hook_points(
    text: str, available: Iterable[HookPoint], block_counts: Mapping[str, int], suggested: Iterable[str] = ()
) -> tuple[HookPoint, ...]:
    """Which of a vector's hook points a user's choice means, in the vector's order.

    `text` is "auto" (the vector's suggestion; else `conditioning`; else its block output nearest half depth; else all),
    "all", "cross_attention" (all of that kind), or a comma-separated list of hook points and depth fractions. "0.5" is
    the vector's block output nearest half depth; of a vector without block outputs its nearest cross-attention.

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
        elif part == CROSS_ATTENTION and (found := [name for name in available if name.kind == CROSS_ATTENTION]):
            chosen.update(found)
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
    available: tuple[HookPoint, ...], block_counts: Mapping[str, int], suggested: tuple[str, ...]
) -> tuple[str, ...]:
    if suggested:
        return suggested
    if "conditioning" in available:
        return ("conditioning",)
    if len(available) == 1 or {point.kind for point in available} == {CROSS_ATTENTION}:
        return available
    return (_nearest(0.5, available, block_counts),)


def _nearest(fraction: float, available: tuple[HookPoint, ...], block_counts: Mapping[str, int]) -> HookPoint:
    inside = [point for point in available if point.list in block_counts]
    blocks = [point for point in inside if point.is_block] or inside
    if not blocks or not 0 <= fraction <= 1:
        raise MismatchError(
            f"A depth ({fraction:g}) must lie between 0 and 1 and needs a vector with block hook points; "
            f"this vector has: {_listing(available)}."
        )
    return min(blocks, key=lambda point: abs(depth(point, block_counts) - fraction))


def _listing(names: tuple[HookPoint, ...]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
