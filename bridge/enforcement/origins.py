"""Where results come from that core takes out of its cache: which sampler runs made them, in an earlier job."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from .job import Job, SampledNode

KEPT = 4096  # sampled nodes; a result whose origin is forgotten counts as never sampled


class Origins:
    """The sampled nodes of earlier jobs, under the keys by which core itself finds their results again."""

    def __init__(self) -> None:
        self._sampled: OrderedDict[Any, SampledNode] = OrderedDict()

    def clear(self) -> None:
        """Forget everything, as core's cache was."""
        self._sampled.clear()

    def remember(self, job: Job, executor: Any) -> None:
        """Keep what was sampled in a job that has ended."""
        keys = _keys_of(executor)
        for node_id, node in job.sampled.items():
            if keys is not None and (key := keys.get_data_key(node_id)) is not None:
                self._sampled[key] = node
        while len(self._sampled) > KEPT:
            self._sampled.popitem(last=False)

    def note(self, job: Job, executor: Any) -> None:
        """Tell a job which of its nodes have results that earlier jobs sampled."""
        keys = _keys_of(executor)
        for node_id in job.prompt if keys is not None else ():
            if known := self._sampled.get(keys.get_data_key(node_id)):
                job.reused[node_id] = known


def _keys_of(executor: Any) -> Any:
    """Core's keys of the prompt that it runs, or None if it keeps no cache."""
    return getattr(executor.caches.outputs, "cache_key_set", None)
