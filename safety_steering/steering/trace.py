"""The trace of one sampler run: what steering did in each model call, as plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..hook_point import CROSS_ATTENTION
from ..vectors.vector import WHOLE

OFF = "off"
NOT_IN_WINDOW = "not in window"
NOTHING_TO_EDIT = "nothing to edit"
ACTED = "acted"
NOTHING_FOUND = "nothing found"  # the gate stayed shut, or all states were safe already: no state was moved
NO_RUN = "no run"
CACHED = "answered by a cache"  # the note of a call in which the blocks did not run


@dataclass(frozen=True)
class HookTrace:
    """What one hook point's edit did in one model call, averaged over the steered samples.

    before, after: category -> mean projection <h, u> of the editable tokens. shift_gaps: category -> change of the mean
    projection in gaps. shift: mean ||change|| / ||h|| of a token. acted: share of tokens the gate let through.
    found: category -> how far the most unsafe sample lies below the benign mean, in its pooled standard deviations.
    opened: the categories that the gate `prompt` let act.
    moved: the largest mean ||change|| / ||h|| of a sample. A prompt's own branch counts in full, where `shift` averages
    it with the other one.
    """

    hook_point: str
    before: Mapping[str, float]
    after: Mapping[str, float]
    shift_gaps: Mapping[str, float]
    shift: float
    acted: float
    found: Mapping[str, float] = field(default_factory=dict)
    moved: float = 0.0
    opened: tuple[str, ...] = ()


@dataclass(frozen=True)
class CallTrace:
    """One model call. `note` says why nothing was done, or is empty. rows: branch -> number of samples in the call."""

    sigma: float
    rows: Mapping[str, int]
    hooks: tuple[HookTrace, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class RunTrace:
    """One sampler run. `status` is one of this module's constants; `reason` says why nothing was steered.

    texts: the calls are texts that a text encoder has read, and their sigma is a number of the text.
    """

    status: str
    settings: Mapping[str, Any]
    calls: tuple[CallTrace, ...] = ()
    reason: str = ""
    warnings: tuple[str, ...] = ()
    prompt_id: str = ""
    node_id: str = ""
    vector: Mapping[str, Any] = field(default_factory=dict)
    texts: bool = False

    @property
    def succeeded(self) -> bool:
        """Whether steering was at work: it moved states, or found nothing to move."""
        return self.status in (ACTED, NOTHING_FOUND)

    @property
    def steps(self) -> int:
        """Number of noise levels at which the model was called."""
        return len({call.sigma for call in self.calls})

    @property
    def steered_steps(self) -> int:
        """Number of noise levels at which at least one call was steered."""
        return len({call.sigma for call in self.calls if call.hooks})

    @property
    def moved_steps(self) -> int:
        """Number of noise levels at which steering moved states."""
        return len({call.sigma for call in self.calls if any(hook.shift > 0 for hook in call.hooks)})

    @property
    def mean_gaps(self) -> float:
        """Mean change of the projections in gaps, over all edits; 0 without one."""
        gaps = [abs(gap) for call in self.calls for hook in call.hooks for gap in hook.shift_gaps.values()]
        return sum(gaps) / len(gaps) if gaps else 0.0

    def summary(self) -> str:
        """What happened, in sentences for people."""
        if self.status == NOTHING_FOUND:
            return "Found nothing unsafe in this prompt: left as it is, bit for bit."
        if self.status != ACTED:
            return f"Nothing was steered: {self.reason}"
        hooks = [hook for call in self.calls for hook in call.hooks]
        points = sorted({hook.hook_point for hook in hooks})
        states = "prompt's states" if points == ["conditioning"] else f"states at {points[0]}"
        if len(points) > 1:
            states = f"states at {len(points)} hook points"
        if all(point.startswith(f"{CROSS_ATTENTION}.") for point in points):
            states = f"states that {len(points)} blocks read" if len(points) > 1 else "states that one block reads"
        moved = max(hook.moved for hook in hooks)
        size = f"{moved:.{0 if moved >= 0.1 else 1}%} of their size"
        if self.texts:
            where = f"the {states} in the text encoder"
            return f"{self._found(hooks)}Moved {where} by {size} in {self.moved_steps} of {self.steps} texts."
        cached = sum(call.note == CACHED for call in self.calls)
        return (
            f"{self._found(hooks)}Moved the {states} by {size} in {self.moved_steps} of {self.steps} steps."
            f"{f' {cached} calls were answered by a cache.' if cached else ''}"
        )

    def _found(self, hooks: Sequence[HookTrace]) -> str:
        """What a gate found in the prompt, the most unsafe category first; empty under a gate that finds nothing."""
        how = self.settings.get("intervention", {})
        if how.get("gate") not in ("pooled", "prompt"):
            return ""
        lowest: dict[str, float] = {}
        for hook in hooks:
            for name, distance in hook.found.items():
                found = name in hook.opened if how["gate"] == "prompt" else distance > -how["threshold"]
                if found:
                    lowest[name] = max(distance, lowest.get(name, -math.inf))
        if not lowest:
            return ""
        # "all" is no theme that a reader knows
        names = sorted(lowest.keys() - {WHOLE}, key=lambda name: -lowest[name]) or ["something unsafe"]
        listed = ", ".join(names[:-1]) + (" and " if names[1:] else "") + names[-1]
        return f"Found {listed} in this prompt ({max(lowest.values()):.1f} x the harmless spread). "

    def as_dict(self) -> dict[str, Any]:
        """The whole trace as plain data, with the summary in it."""
        return {"summary": self.summary(), **asdict(self)}
