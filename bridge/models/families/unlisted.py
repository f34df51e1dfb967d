"""The generic shape, for models without a row: one list of blocks that return (B, N, D)."""

from __future__ import annotations

from torch import nn

from .schema import BlockList, Family, StateArgument

_WIDTHS = ("dim", "hidden_size", "inner_dim", "model_dim", "model_channels")
_CHANNELS = ("in_channels", "in_dim", "out_channels")


def generic_family(model: nn.Module) -> Family | None:
    """A row for an unlisted model that has one list of alike blocks and tells its width; None for any other.

    Every token counts as generated, because nothing is known of them.
    """
    lists = [
        name
        for name, module in model.named_children()
        if isinstance(module, nn.ModuleList) and len(module) > 1 and len({type(block) for block in module}) == 1
    ]
    width = next((name for name in _WIDTHS if isinstance(getattr(model, name, None), int)), None)
    channels = next((name for name in _CHANNELS if isinstance(getattr(model, name, None), int)), None)
    if len(lists) != 1 or width is None or channels is None:
        return None
    name = f"untested.{type(model).__name__}"
    return Family(
        name=name,
        class_name=type(model).__name__,
        lists=(BlockList(lists[0]),),
        width=width,
        channels=channels,
        entry=f"{lists[0]}.0",
        layout="whole",
        states={"conditioning": (StateArgument("c_crossattn", {}),)},
        tested=False,
    )
