"""The trace of one sampler run: what steering did in each model call, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

OFF = "off"
NOT_IN_WINDOW = "not in window"
NOTHING_TO_EDIT = "nothing to edit"
ACTED = "acted"
NO_RUN = "no run"
CACHED = "answered by a cache"  # the note of a call in which the blocks did not run


@dataclass(frozen=True)
class HookTrace:
    """What one hook point's edit did in one model call, averaged over the steered samples.

    before, after: category -> mean projection <h, u> of the editable tokens. shift_gaps: category -> change of the mean
    projection in gaps. shift: mean ||change|| / ||h|| of a token. acted: share of tokens the gate let through.
    """

    hook_point: str
    before: Mapping[str, float]
    after: Mapping[str, float]
    shift_gaps: Mapping[str, float]
    shift: float
    acted: float


@dataclass(frozen=True)
class CallTrace:
    """One model call. `note` says why nothing was done, or is empty. rows: branch -> number of samples in the call."""

    sigma: float
    rows: Mapping[str, int]
    hooks: tuple[HookTrace, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class RunTrace:
    """One sampler run. `status` is one of this module's constants; `reason` says why, where it is not `acted`."""

    status: str
    settings: Mapping[str, Any]
    calls: tuple[CallTrace, ...] = ()
    reason: str = ""
    warnings: tuple[str, ...] = ()
    prompt_id: str = ""
    node_id: str = ""
    vector: Mapping[str, Any] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """Number of noise levels at which the model was called."""
        return len({call.sigma for call in self.calls})

    @property
    def steered_steps(self) -> int:
        """Number of noise levels at which at least one call was steered."""
        return len({call.sigma for call in self.calls if call.hooks})

    @property
    def mean_gaps(self) -> float:
        """Mean change of the projections in gaps, over all edits; 0 without one."""
        gaps = [abs(gap) for call in self.calls for hook in call.hooks for gap in hook.shift_gaps.values()]
        return sum(gaps) / len(gaps) if gaps else 0.0

    def summary(self) -> str:
        """One sentence for people: how often it acted, where, and by how much."""
        if self.status != ACTED:
            return f"Steering did not act ({self.status}): {self.reason}"
        hooks = [hook for call in self.calls for hook in call.hooks]
        points = sorted({hook.hook_point for hook in hooks})
        where = points[0] if len(points) == 1 else f"{len(points)} hook points"
        shift = sum(hook.shift for hook in hooks) / len(hooks)
        cached = sum(call.note == CACHED for call in self.calls)
        return (
            f"Acted on {self.steered_steps} of {self.steps} steps at {where}: "
            f"mean shift {self.mean_gaps:.2f} gaps ({shift:.1%} of the token norm)."
            f"{f' {cached} calls were answered by a cache.' if cached else ''}"
        )

    def as_dict(self) -> dict[str, Any]:
        """The whole trace as plain data, with the summary in it."""
        return {"summary": self.summary(), **asdict(self)}
