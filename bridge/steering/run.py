"""The state of one sampler run, and the check at its end that steering acted.

Measurements stay on the device during the run and are read once, at its end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ...safety_steering.errors import NotSteeredError
from ...safety_steering.hook_point import HookPoint
from ...safety_steering.steering.interventions import Effect, Targets
from ...safety_steering.steering.prompt_gate import Decision
from ...safety_steering.steering.trace import (
    ACTED,
    CACHED,
    NOT_IN_WINDOW,
    NOTHING_FOUND,
    NOTHING_TO_EDIT,
    CallTrace,
    HookTrace,
    RunTrace,
)
from .branches import is_targeted

OUTSIDE_WINDOW = "outside the window"
OTHER_BRANCH = "no sample of the steered branch"
REPLACED = "block replaced by another node"
MOST = 0.5
NOT_FINITE = (
    "led to values that are not finite numbers. Lower the strength or the weights of the mix, or set norm to token; if "
    "it happens without Apply too, the model itself overflows in this precision."
)


@dataclass(frozen=True, eq=False)
class Measured:
    """The effect of one edit at a hook point, on the device, and what the gate `prompt` decided for it."""

    hook_point: HookPoint
    targets: Targets
    effect: Effect
    decision: Decision | None = None


@dataclass
class Call:
    """One model call as it happened.

    roles: one per equal chunk of the batch; rows: samples a chunk. missed: hook points whose module did not run, though
    no other node replaced it. entered: the transformer ran. blocks_ran: share of its witness blocks that did.
    """

    sigma: float
    roles: tuple[str, ...]
    rows: int
    note: str = ""
    measured: list[Measured] = field(default_factory=list)
    missed: list[HookPoint] = field(default_factory=list)
    entered: bool = False
    blocks_ran: float = 0.0


@dataclass
class Run:
    """Everything that belongs to one sampler run. Lives in that run's transformer_options, shared by its threads.

    roles: uuid of a conditioning -> role. lists: role of each list of conditionings, while core batches them.
    """

    roles: Mapping[Any, str] = field(default_factory=dict)
    lists: tuple[str, ...] = ()
    calls: list[Call] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def finish(run: Run, branch: str, **about: Any) -> RunTrace:
    """Read a run's measurements off the device and check that it acted.

    Raises:
        NotSteeredError: calls lay inside the window, on a steered branch, with something to edit, and none acted; or a
            block ran in a call without being steered.
    """
    if not run.calls:
        return RunTrace(NOT_IN_WINDOW, reason="the sampler never called the model.", **about)
    _note_cached(run)
    check_missed(run)
    calls = tuple(_read(call, branch) for call in run.calls)
    notes = Counter(call.note for call in calls)
    status, reason = ACTED, ""
    if not any(call.hooks for call in calls):
        asked = [call.note for call in calls if call.note not in (OUTSIDE_WINDOW, OTHER_BRANCH)]
        if not asked:
            status, reason = NOT_IN_WINDOW, _why_outside(calls, notes)
        elif all(note == NOTHING_TO_EDIT for note in asked):
            status, reason = NOTHING_TO_EDIT, "every state was zero or belonged to a fixed frame."
        else:
            wider = ", or widen the window" if notes[OUTSIDE_WINDOW] else ""
            raise NotSteeredError(
                f"Steering was asked for in {len(asked)} model calls and acted in none of them "
                f"({', '.join(sorted(set(asked)))}). Remove or reorder the node that replaces the block{wider}."
            )
    elif not any(hook.moved for call in calls for hook in call.hooks):
        status = NOTHING_FOUND
    if notes[REPLACED]:
        run.warnings.append(f"In {notes[REPLACED]} of {len(calls)} model calls another node replaced a steered block.")
    return RunTrace(status, calls=calls, reason=reason, warnings=tuple(dict.fromkeys(run.warnings)), **about)


def _note_cached(run: Run) -> None:
    """Note the calls that a cache of blocks answered: most blocks were skipped, and ran in other calls of the run.

    What was edited in such a call did not reach the blocks that matter, so it does not count as steered.
    """
    if any(call.blocks_ran >= MOST for call in run.calls):
        for call in run.calls:
            if call.entered and call.blocks_ran < MOST and not call.note:
                call.note, call.measured, call.missed = CACHED, [], []


def check_missed(run: Run) -> None:
    """Raise NotSteeredError if the model ran in a call and a block that should have been steered did not."""
    for name in (name for call in run.calls for name in call.missed):
        raise NotSteeredError(
            f"The model ran, but {name} was not steered in this call: the hook there did not fire. "
            "Another node may run the model in its own way; remove it, or steer at 'conditioning'."
        )


def check_finite(samples: torch.Tensor) -> None:
    """Check a steered run's latent: an overflow after the last edit shows only here.

    Raises:
        NotSteeredError: the latent has values that are not finite.
    """
    if not torch.isfinite(samples).all():
        raise NotSteeredError(f"The steered run {NOT_FINITE}")


def _why_outside(calls: tuple[CallTrace, ...], notes: Counter[str]) -> str:
    if notes[OUTSIDE_WINDOW] == len(calls):
        sigmas = [call.sigma for call in calls]
        return (
            f"your sampler ran outside the window, from sigma {max(sigmas):.3g} to {min(sigmas):.3g}. "
            "Widen the window: 0 to 1 acts on every step."
        )
    return "inside the window the model was never called for the chosen branch. Choose branch 'both'."


def _read(call: Call, branch: str) -> CallTrace:
    rows = dict(Counter(role for role in call.roles for _ in range(call.rows)))
    steered = torch.tensor([is_targeted(role, branch) for role in call.roles]).repeat_interleave(call.rows)
    hooks = tuple(trace for measured in call.measured if (trace := _read_measured(measured, steered)) is not None)
    nothing = call.measured and not hooks
    return CallTrace(call.sigma, rows, hooks, NOTHING_TO_EDIT if nothing else call.note)


def _read_measured(measured: Measured, steered: torch.Tensor) -> HookTrace | None:
    """The mean over the steered samples with editable tokens; None if there are none."""
    effect, names = measured.effect, measured.targets.categories
    columns = [effect.before, effect.after, effect.editable, effect.acted, effect.shift]
    table = torch.cat([column.double().reshape(len(steered), -1) for column in columns], dim=1).cpu()
    rows = steered & (table[:, -3] > 0)
    table = table[rows]
    if not len(table):
        return None
    if not torch.isfinite(table).all():
        raise NotSteeredError(f"At {measured.hook_point} steering {NOT_FINITE}")
    means = table.mean(dim=0).tolist()
    before = dict(zip(names, means, strict=False))
    after = dict(zip(names, means[len(names) :], strict=False))
    gaps = dict(zip(names, measured.targets.gap.tolist(), strict=True))
    decision = measured.decision
    return HookTrace(
        hook_point=measured.hook_point,
        before=before,
        after=after,
        shift_gaps={name: (after[name] - before[name]) / gap if gap > 0 else 0.0 for name, gap in gaps.items()},
        acted=means[-2],
        shift=means[-1],
        found=_found_in_states(measured.targets, table) if decision is None else _found(decision, rows),
        opened=_opened(decision, rows),
        moved=float(table[:, -1].max()),
    )


def _found_in_states(targets: Targets, table: torch.Tensor) -> dict[str, float]:
    """How far the lowest mean projection of a sample lies below the benign mean, in standard deviations."""
    lowest = table[:, : len(targets.categories)].amin(dim=0).tolist()
    spreads = zip(targets.center.tolist(), targets.std_pooled.tolist(), strict=True)
    return {
        name: (center - low) / std if std > 0 else 0.0
        for name, low, (center, std) in zip(targets.categories, lowest, spreads, strict=True)
    }


def _found(decision: Decision, rows: torch.Tensor) -> dict[str, float]:
    """The same of the detectors, over the rows (B,) bool."""
    z = decision.z[:, 0].cpu().expand(len(rows), -1)[rows]
    return dict(zip(decision.categories, (-z.amin(dim=0)).tolist(), strict=True))


def _opened(decision: Decision | None, rows: torch.Tensor) -> tuple[str, ...]:
    """The categories that the gate `prompt` let act in some of the rows (B,) bool."""
    if decision is None:
        return ()
    opened = decision.opened[:, 0].cpu().expand(len(rows), -1)[rows].any(dim=0).tolist()
    return tuple(name for name, open_ in zip(decision.categories, opened, strict=True) if open_)
