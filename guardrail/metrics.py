"""Counters of a guarded server, in Prometheus' format."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from .errors import MetricsError

PREFIX = "safety_steering"
COUNTERS = {
    "jobs": "Jobs that ended",
    "steered": "Jobs that were steered",
    "refused": "Prompts and jobs that were refused",
    "unsampled": "Jobs with an output that was not sampled here",
    "steps": "Noise levels at which a model was steered",
    "gate_trips": "Outputs that the output gate held back",
    "policy_reloads": "Times another policy was loaded",
}


class Metrics:
    """Counts for any number of threads. `prometheus-client` is needed to render, not to count."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(COUNTERS, 0)

    def add(self, name: str, amount: int = 1) -> None:
        """Count `amount` more; KeyError for a name that is not in COUNTERS."""
        with self._lock:
            self._counts[name] += amount

    def counts(self) -> dict[str, int]:
        """The counts now."""
        with self._lock:
            return dict(self._counts)

    def render(self) -> tuple[bytes, str]:
        """The counts in Prometheus' text format, and its content type.

        Raises:
            MetricsError: `prometheus-client` is not installed.
        """
        try:
            from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
        except ModuleNotFoundError as error:
            raise MetricsError("Metrics need the package prometheus-client. pip install prometheus-client") from error
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return generate_latest(registry), CONTENT_TYPE_LATEST

    def collect(self) -> Iterator[Any]:
        """The collector interface of prometheus_client."""
        from prometheus_client.core import CounterMetricFamily

        for name, count in self.counts().items():
            yield CounterMetricFamily(f"{PREFIX}_{name}", COUNTERS[name], value=count)
