"""What the browser is told of a steered run: a message to the client that asked for it, and to no other, as the run
ends; and the same in the ui of nodes that show the run."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..safety_steering.steering.trace import CallTrace, RunTrace

if TYPE_CHECKING:
    from .steering.apply import Steering

EVENT = "safety_steering.trace"


def trace_teller(node_id: str | None) -> Callable[[RunTrace], None]:
    """A function that sends a run's trace to the browser, as that of the node with this id."""

    def tell(trace: RunTrace) -> None:
        from server import PromptServer

        server = getattr(PromptServer, "instance", None)
        client = getattr(server, "client_id", None)
        if server is None or client is None:  # a message to nobody in particular would go to everyone
            return
        try:
            server.send_sync(EVENT, {"node": node_id, **condense(trace)}, client)
        except Exception:  # a picture in the browser is not worth a run
            logging.exception("Safety Steering: the browser could not be told what steering did")

    return tell


def traces_for_cache(steerings: Sequence[Steering]) -> dict[str, Any]:
    """For the ui of a node that shows a steered run: each steering's last trace, in the order they were applied.

    ComfyUI keeps a node's ui with its results, so a prompt that comes out of the cache tells what its run has told.
    """
    return {"safety_steering_traces": [condense(steering.traces[-1]) for steering in steerings if steering.traces]}


def condense(trace: RunTrace) -> dict[str, Any]:
    """A trace as the browser draws it, plain data of bounded size: one entry a noise level, in the order of the run."""
    hooks = [hook for call in trace.calls for hook in call.hooks]
    return {
        "status": trace.status,
        "reason": trace.reason,
        "warnings": list(trace.warnings),
        "prompt_id": trace.prompt_id,
        "steps": trace.steps,
        "steered_steps": trace.steered_steps,
        "hook_points": sorted({hook.hook_point for hook in hooks}),
        "gaps": _mean([abs(gap) for hook in hooks for gap in hook.shift_gaps.values()]),
        "shift": _mean([hook.shift for hook in hooks]),
        "series": [
            _at(sigma, [call for call in trace.calls if call.sigma == sigma])
            for sigma in dict.fromkeys(call.sigma for call in trace.calls)
        ],
    }


def _at(sigma: float, calls: Sequence[CallTrace]) -> dict[str, Any]:
    hooks = [hook for call in calls for hook in call.hooks]
    return {
        "sigma": sigma,
        "note": "" if hooks else next((call.note for call in calls if call.note), ""),
        "before": _mean([value for hook in hooks for value in hook.before.values()]),
        "after": _mean([value for hook in hooks for value in hook.after.values()]),
        "shift": _mean([hook.shift for hook in hooks]),
    }


def _mean(values: Sequence[float]) -> float | None:
    """The mean of the finite values; None if there is none."""
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else None
