"""The model of a case, steered and watched by hooks that know nothing of the pack."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from core_names import missing_classes
from exact_moves import check_moved
from tiny.vectors import vector_for

from family_cases.case import FamilyCase
from family_cases.runs import run, streams_of

STRENGTH, GAP = 2.0, 0.5


def skip_unless_core_has(case: FamilyCase, tree: Path) -> None:
    """An older ComfyUI has fewer families; on the one that the pack is made for, test_core_names wants them all."""
    from safety_steering_pack.bridge.models.families import FAMILIES

    row = next(row for row in FAMILIES if row.name == case.family)
    if missing_classes([row.class_name], tree):
        pytest.skip(f"this ComfyUI has no {row.class_name}")


class Family:
    """A case with its model built, once for all checks."""

    def __init__(self, case: FamilyCase, dtype: torch.dtype = torch.float32) -> None:
        from safety_steering_pack.bridge.models.model_map import model_hook_points, read_shape

        self.case = case
        self.patcher = case.build(dtype)
        self.model = self.patcher.model.diffusion_model
        self.shape = read_shape(self.model)
        self.points = model_hook_points(self.shape)
        self.vector = vector_for(self.model, conditioning_width=case.states_width, reads=True, gap=GAP)

    def steered(
        self, points: tuple[str, ...], strength: float = STRENGTH, vector: Any = None, patcher: Any = None
    ) -> Any:
        from safety_steering_pack.bridge.steering.apply import apply_steering
        from safety_steering_pack.bridge.steering.settings import SteeringSettings
        from safety_steering_pack.safety_steering.steering.interventions import Intervention

        settings = SteeringSettings(strength, points, Intervention("add", "none"), window=(0, 1))
        return apply_steering(patcher or self.patcher, vector or self.vector, settings)

    def direction(self, point: str) -> torch.Tensor:
        return self.vector.at(point).categories["violence"].direction[0].double()

    def blocks(self) -> dict[torch.nn.Module, list[str]]:
        """The module of each block -> its hook points."""
        from safety_steering_pack.bridge.models.model_map import find_block
        from safety_steering_pack.safety_steering.hook_point import HookPoint

        blocks = defaultdict(list)
        for point in self.points:
            blocks[find_block(self.model, HookPoint(point))].append(point)
        return blocks


@contextmanager
def watched(family: Family) -> Iterator[tuple[dict[torch.nn.Module, list[tuple[Any, Any]]], list[dict[str, Any]]]]:
    """Records what leaves each block before and after the pack's hooks, and the arguments of each model call."""
    seen, calls, handles, before = defaultdict(list), [], [], {}

    def copy(output: Any) -> Any:
        if isinstance(output, tuple):
            return tuple(copy(item) for item in output)
        return output.clone() if isinstance(output, torch.Tensor) else output

    for block in family.blocks():
        handles.append(block.register_forward_hook(lambda m, i, output: before.update({m: copy(output)})))
        last = block.register_forward_hook(lambda m, i, output: seen[m].append((before.pop(m), copy(output))))
        handles.append(last)
        handles.append(  # behind whatever has been registered meanwhile
            block.register_forward_pre_hook(lambda m, i, last=last: m._forward_hooks.move_to_end(last.id))
        )
    handles.append(
        family.model.register_forward_pre_hook(lambda m, i, named: calls.append(copy_values(named)), with_kwargs=True)
    )
    try:
        yield seen, calls
    finally:
        for handle in handles:
            handle.remove()


def copy_values(named: dict[str, Any]) -> dict[str, Any]:
    return {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in named.items()}


def check_blocks(family: Family) -> None:
    with watched(family) as (seen, calls):
        steered = run(family.case, family.steered(family.points))
    assert calls
    assert torch.isfinite(steered).all()
    for block, points in family.blocks().items():
        hits = family.case.hits.get(points[0].split(".")[1], 1)
        assert len(seen[block]) == hits * len(calls), f"{points[0]} ran {len(seen[block])} times in {len(calls)} calls"
        for before, after in seen[block]:
            for streams in streams_of(family.case, points):
                old, new = streams.sequence(before), streams.sequence(after)
                assert streams.total in (None, old.shape[1])
                shifts = [STRENGTH * GAP * family.direction(point) for point in streams.points]
                check_moved(old, new, *streams.shifts(shifts, old.shape[1]))


def flat(output: Any) -> torch.Tensor:
    items = output if isinstance(output, tuple) else (output,)
    return torch.cat([item.flatten() for item in items if isinstance(item, torch.Tensor)])
