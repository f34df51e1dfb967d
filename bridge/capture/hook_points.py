"""The hook points that a user chooses for a capture, and which tokens are pooled there."""

from __future__ import annotations

from collections.abc import Sequence

from ...safety_steering.errors import SafetySteeringError
from ...safety_steering.hook_point import ALL, CROSS_ATTENTION, HookPoint, depth, select_hook_points
from ..models.model_map import Shape, block_space, model_hook_points

MEAN, PER_FRAME, TEXT_TOKENS = "mean", "per_frame", "text_tokens"
POOLINGS = (MEAN, PER_FRAME, TEXT_TOKENS)


def choose_hook_points(text: str, shape: Shape, pooling: str = MEAN) -> tuple[HookPoint, ...]:
    """The hook points of a model by a user's text: "all", names, depths such as 0.5, ranges such as 0.25-0.75.

    "all" is every block output and the prompt states; "cross_attention" is what every block reads from the text. A
    range selects the block outputs between two depths. The pooling decides which streams: per frame the image streams,
    for text tokens the text streams. With the mean, a depth or a range selects image streams and "all" every stream.

    Raises:
        MismatchError: the model has no such hook point.
        SafetySteeringError: a range is not valid or empty, or no stream of this model allows the pooling.
    """
    if pooling not in POOLINGS:
        raise SafetySteeringError(f"The pooling is '{pooling}', expected one of {', '.join(POOLINGS)}.")
    stream = "text" if pooling == TEXT_TOKENS else "image"
    inside = tuple(point for point in model_hook_points(shape) if pooling == MEAN or point.stream == stream)
    blocks = tuple(point for point in inside if point.is_block)
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
        if len(ends) == 2:
            parts += _between(ends, blocks, shape, stream)
        elif part.strip() == ALL:
            parts += [*states, *blocks]
        else:
            parts.append(_known(part.strip(), inside, shape))
    return select_hook_points(",".join(parts), states + inside, shape.block_counts)


def _known(part: str, inside: Sequence[HookPoint], shape: Shape) -> str:
    """`part`, unless it asks for what blocks read where the model map has nothing of that kind."""
    if part == CROSS_ATTENTION and not any(point.kind == CROSS_ATTENTION for point in inside):
        block_space(shape, HookPoint(f"{CROSS_ATTENTION}.{next(iter(shape.block_counts))}.0.image"))
    if part.startswith(f"{CROSS_ATTENTION}.") and part not in inside:
        block_space(shape, HookPoint(part))
    return part


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
