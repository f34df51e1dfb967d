"""The audit record of one job, and how it is computed from the job's traces."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from statistics import fmean
from typing import Any

from ..safety_steering.steering.trace import RunTrace

STEERED = "steered"
CLIENT_BASED = "steered from client content"
MIXED = "contains other content"
NOT_SAMPLED = "not sampled here"
NO_RULE = "no rule"
NOT_STEERED = "not steered"
VERDICTS = (STEERED, CLIENT_BASED, NO_RULE, MIXED, NOT_SAMPLED, NOT_STEERED)  # from the best to the worst

DELIVERED = "delivered"
REPLACED = "replaced"
REFUSED = "refused"
FAILED = "failed"
INTERRUPTED = "interrupted"
DECISIONS = (DELIVERED, REPLACED, REFUSED, FAILED, INTERRUPTED)


def utc_now() -> str:
    """The time as ISO 8601 in UTC, to the millisecond: 2026-01-31T12:00:00.000Z."""
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    return now.replace("+00:00", "Z")


@dataclass(frozen=True)
class JobRecord:
    """One line of the audit log.

    verdict: one of VERDICTS. decision, reason: one of DECISIONS, and why. models: weight fingerprints. vectors: content
    sha256 of those that acted. blocks: hook points that were edited. steps, steered_steps: noise levels at which a
    model was called, and was steered, over all sampler runs. projections: mean <h, u> before and after, by hook point
    and category. settings: how each vector steered: its sha256, strength, level and basis (None and empty if
    they were set by hand). outputs: one record for each file. prompt: its text, only if the policy asks for it.
    """

    prompt_id: str
    policy_sha256: str
    verdict: str
    decision: str
    reason: str = ""
    models: tuple[str, ...] = ()
    vectors: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()
    steps: int = 0
    steered_steps: int = 0
    cached_calls: int = 0
    projections: tuple[Mapping[str, Any], ...] = ()
    settings: tuple[Mapping[str, Any], ...] = ()
    outputs: tuple[Mapping[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()
    prompt: str | None = None
    time: str = field(default_factory=utc_now)

    def __post_init__(self) -> None:
        for value, allowed in ((self.verdict, VERDICTS), (self.decision, DECISIONS)):
            if value not in allowed:
                raise ValueError(f"'{value}' is not one of {', '.join(allowed)}.")


def sum_up(traces: Sequence[RunTrace]) -> dict[str, Any]:
    """The fields of JobRecord that follow from traces: vectors, blocks, steps, steered_steps, projections, warnings.

    A projection is the mean over the steered model calls.
    """
    hooks = [hook for trace in traces for call in trace.calls for hook in call.hooks]
    met: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for hook in hooks:
        for category, before in hook.before.items():
            met[hook.hook_point, category].append((before, hook.after[category]))
    return {
        "vectors": _distinct(str(trace.vector["sha256"]) for trace in traces if trace.steered_steps),
        "settings": _settings(traces),
        "blocks": _distinct(hook.hook_point for hook in hooks),
        "steps": sum(trace.steps for trace in traces if not trace.texts),
        "steered_steps": sum(trace.steered_steps for trace in traces if not trace.texts),
        "projections": tuple(
            {
                "hook_point": hook_point,
                "category": category,
                "before": _mean(before for before, _ in values),
                "after": _mean(after for _, after in values),
            }
            for (hook_point, category), values in met.items()
        ),
        "warnings": _distinct(warning for trace in traces for warning in trace.warnings),
    }


def _settings(traces: Iterable[RunTrace]) -> tuple[Mapping[str, Any], ...]:
    found: list[Mapping[str, Any]] = []
    for trace in traces:
        how = {key: trace.settings.get(key) for key in ("strength", "level", "basis")}
        if trace.steered_steps and (entry := {"vector": str(trace.vector["sha256"]), **how}) not in found:
            found.append(entry)
    return tuple(found)


def _mean(values: Iterable[float]) -> float | None:
    """The mean, or None if it is not finite: JSON has no NaN."""
    mean = fmean(values)
    return mean if math.isfinite(mean) else None


def _distinct(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
