"""The hook points that a user chooses for a capture, and which tokens are pooled there."""

from __future__ import annotations

from collections.abc import Sequence

from ...safety_steering.errors import SafetySteeringError
from ...safety_steering.hook_point import HookPoint, depth, select_hook_points
from ..models.model_map import Shape, model_hook_points

MEAN, PER_FRAME, TEXT_TOKENS = "mean", "per_frame", "text_tokens"
POOLINGS = (MEAN, PER_FRAME, TEXT_TOKENS)


def choose_hook_points(text: str, shape: Shape, pooling: str = MEAN) -> tuple[HookPoint, ...]:
    """The hook points of a model by a user's text: "all", names, depths such as 0.5, ranges such as 0.25-0.75.

    A range selects the streams between two depths. The pooling decides which streams: per frame the image streams, for
    text tokens the text streams. With the mean, a depth or a range selects image streams and "all" every stream.

    Raises:
        MismatchError: the model has no such hook point.
        SafetySteeringError: a range is not valid or empty, or no stream of this model allows the pooling.
    """
    if pooling not in POOLINGS:
        raise SafetySteeringError(f"The pooling is '{pooling}', expected one of {', '.join(POOLINGS)}.")
    stream = "text" if pooling == TEXT_TOKENS else "image"
    blocks = tuple(point for point in model_hook_points(shape) if pooling == MEAN or point.stream == stream)
    has_states = "conditioning" in shape.family.states and pooling != PER_FRAME
    states = (HookPoint("conditioning"),) if has_states else ()
    if pooling == TEXT_TOKENS and not blocks and text.strip() not in ("all", *states):
        raise SafetySteeringError(
            f"The blocks of {shape.name} carry no text tokens of their own. Capture at 'conditioning', where the "
            "text comes in, or choose the pooling 'mean'."
        )
    parts: list[str] = []
    for part in text.split(","):
        ends = part.strip().split("-")
        parts += _between(ends, blocks, shape, stream) if len(ends) == 2 else [part]
    return select_hook_points(",".join(parts), states + blocks, shape.block_counts)


def _between(ends: Sequence[str], blocks: Sequence[HookPoint], shape: Shape, stream: str) -> list[HookPoint]:
    try:
        low, high = map(float, ends)
    except ValueError:
        low, high = 1.0, 0.0
    inside = [
        point
        for point in blocks
        if point.list in shape.block_counts
        and point.stream == stream
        and low <= depth(point, shape.block_counts) <= high
    ]
    if not inside:
        raise SafetySteeringError(
            f"'{'-'.join(ends)}' is not a range of depths that holds a block. "
            "Write one between 0 and 1, such as 0.25-0.75."
        )
    return inside
