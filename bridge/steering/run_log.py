"""What one steering did, by what, and for which result."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Hashable
from dataclasses import asdict, dataclass, field
from typing import Any

from comfy_execution.utils import get_executing_context

from ...safety_steering.steering.trace import ACTED, RunTrace
from ...safety_steering.vectors.vector import SafetyVector
from .running import result_key
from .settings import SteeringSettings

KEPT_TRACES = 16  # of a node's runs; a tiled upscale makes one a tile
KEPT_NODES = 64


def described(vector: SafetyVector, settings: SteeringSettings) -> dict[str, Any]:
    """The settings as plain data, with the vector's mix."""
    return {**asdict(settings), "mix": dict(vector.mix)}


def about(vector: SafetyVector, settings: SteeringSettings) -> dict[str, Any]:
    """The fields of a RunTrace that say by what was steered, and for which prompt and node."""
    context = get_executing_context()
    info = vector.info
    return {
        "settings": described(vector, settings),
        "prompt_id": context.prompt_id if context else "",
        "node_id": context.node_id if context else "",
        "vector": {
            "sha256": vector.sha256,
            "kind": info.kind,
            "gap_kind": info.gap_kind,
            "model_name": info.model_name,
            "spaces": {name: vector.at(name).space for name in settings.hook_points},
        },
    }


@dataclass
class NodeRuns:
    """The runs that one node made in one prompt.

    traces: the last of them, oldest first. statuses: status -> runs. gaps: mean shift of each run that acted, in gaps.
    """

    prompt_id: str
    traces: deque[RunTrace] = field(default_factory=lambda: deque(maxlen=KEPT_TRACES))
    statuses: Counter[str] = field(default_factory=Counter)
    gaps: list[float] = field(default_factory=list)

    def add(self, trace: RunTrace) -> None:
        """Note one more run."""
        self.traces.append(trace)
        self.statuses[trace.status] += 1
        if trace.status == ACTED:
            self.gaps.append(trace.mean_gaps)

    def summary(self) -> str:
        """Counts over all runs if not all are kept, such as "36 runs, all acted; 16 shown."; else an empty string."""
        count = self.statuses.total()
        if count == len(self.traces):
            return ""
        others = [f"{number} {status}" for status, number in self.statuses.items() if status != ACTED]
        acted = f"{len(self.gaps)} acted, {', '.join(others)}" if others else "all acted"
        shift = f" Mean shift in gaps over all of them: {sum(self.gaps) / len(self.gaps):.2f}, at least "
        least = f"{shift}{min(self.gaps):.2f}." if self.gaps else ""
        return f"{count} runs, {acted}; {len(self.traces)} shown.{least}"


class RunLog:
    """The runs of one steering, by `result_key` of the node that sampled."""

    def __init__(self) -> None:
        self._nodes: dict[Hashable, NodeRuns] = {}

    def add(self, trace: RunTrace) -> None:
        """Note an ended run of the prompt that is being executed."""
        key = result_key(trace.prompt_id, trace.node_id)
        runs = self._nodes.pop(key, None)
        if runs is None or runs.prompt_id != trace.prompt_id:
            runs = NodeRuns(trace.prompt_id)
        self._nodes[key] = runs
        runs.add(trace)
        while len(self._nodes) > KEPT_NODES:
            del self._nodes[next(iter(self._nodes))]

    def of_results(self, keys: Collection[Hashable] | None = None) -> list[NodeRuns]:
        """The runs that made these results, in the order of their last ones; all of them without `keys`."""
        return [runs for key, runs in self._nodes.items() if keys is None or key in keys]

    def ran_in(self, prompt_id: str) -> bool:
        """Whether any node made a run in this prompt."""
        return any(runs.prompt_id == prompt_id for runs in self._nodes.values())
