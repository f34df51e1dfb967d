"""One job of a guarded server: its sampler runs and its output files, and which earlier runs it reuses."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...guardrail.job_record import NO_RULE, NOT_STEERED, STEERED, UNSAMPLED
from ...guardrail.policy import Policy
from ...safety_steering.errors import SafetySteeringError
from ...safety_steering.steering.trace import RunTrace

MOST_ORIGINS = 4096  # a cached result whose sampler runs are forgotten counts as unsampled


@dataclass(frozen=True)
class SampledNode:
    """What the sampler runs of one node were: the traces of a run, one a rule; none if no rule was for its model."""

    runs: tuple[tuple[RunTrace, ...], ...]
    vectors: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """Whether every run of the node was steered."""
        return STEERED if all(self.runs) else NO_RULE

    @property
    def traces(self) -> tuple[RunTrace, ...]:
        """The traces of all runs."""
        return tuple(trace for run in self.runs for trace in run)


@dataclass(frozen=True)
class OutputFile:
    """A file that a node of the job wrote, and what is recorded of it."""

    path: Path
    verdict: str
    record: Mapping[str, Any]


@dataclass(eq=False)
class Job:
    """What belongs to one running job. It keeps the policy that it began with.

    roots: a node that runs -> the node of the submitted graph it is or came from, as core says: clients choose their
    ids, so these tell nothing. sampled: node of the submitted graph -> its sampler runs in this job. reused: the same
    of nodes whose results core took from its cache. models: weight fingerprint -> family. judged: nodes whose frames
    the output gate has seen; held_back: of these, why frames were replaced. refusal: why the job is refused, or empty.
    """

    prompt_id: str
    prompt: Mapping[str, Mapping[str, Any]]
    policy: Policy
    started: float = field(default_factory=time.time)
    roots: dict[str, str] = field(default_factory=dict)
    sampled: dict[str, SampledNode] = field(default_factory=dict)
    reused: dict[str, SampledNode] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    outputs: dict[Path, OutputFile] = field(default_factory=dict)
    judged: set[str] = field(default_factory=set)
    held_back: dict[str, str] = field(default_factory=dict)
    refusal: str = ""

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Refuses the whole job for a SafetySteeringError raised inside, even if a node should swallow it."""
        try:
            yield
        except SafetySteeringError as error:
            self.refusal = self.refusal or str(error)
            raise

    def add_run(self, node_id: str, traces: Sequence[RunTrace]) -> None:
        """Note a sampler run that has ended and was judged."""
        root = self.root_of(node_id)
        former = self.sampled.get(root, SampledNode(()))
        vectors = [*former.vectors, *(str(trace.vector["sha256"]) for trace in traces)]
        self.sampled[root] = SampledNode((*former.runs, tuple(traces)), tuple(dict.fromkeys(vectors)))

    def root_of(self, node_id: str) -> str:
        """The node of the submitted graph that `node_id` is, or that became a graph of its own with this node in it."""
        return self.roots.get(node_id, node_id)

    def sources_of(self, node_id: str) -> list[SampledNode]:
        """The sampled nodes that `node_id` comes from, in this job or through core's cache."""
        behind = ancestors(self.prompt, self.root_of(node_id))
        return [node for name, node in {**self.reused, **self.sampled}.items() if name in behind]

    @property
    def traces(self) -> tuple[RunTrace, ...]:
        """The traces of every sampler run of this job itself."""
        return tuple(trace for node in self.sampled.values() for trace in node.traces)

    @property
    def verdict(self) -> str:
        """The worst verdict of the outputs; of the sampler runs, if there is no output."""
        if self.refusal and self.models:
            return NOT_STEERED
        if self.outputs:
            found = {output.verdict for output in self.outputs.values()}
        else:
            found = {verdict_of([*self.reused.values(), *self.sampled.values()])}
        return next(verdict for verdict in (NO_RULE, UNSAMPLED, STEERED) if verdict in found)


def verdict_of(sources: Sequence[SampledNode]) -> str:
    """The verdict about something that comes from these sampled nodes."""
    if not sources:
        return UNSAMPLED
    return NO_RULE if any(node.verdict == NO_RULE for node in sources) else STEERED


def ancestors(prompt: Mapping[str, Mapping[str, Any]], node_id: str, until: Container[str] = ()) -> set[str]:
    """A node of a graph and all that it takes links from, however far, but for what lies behind the nodes `until`."""
    found: set[str] = set()
    left = [node_id]
    while left:
        name = left.pop()
        if name in found or name not in prompt:
            continue
        found.add(name)
        left += [] if name in until else links_of(prompt[name])
    return found


def links_of(node: Mapping[str, Any]) -> list[str]:
    """The nodes that a node takes links from."""
    values = node.get("inputs", {}).values()
    return [str(value[0]) for value in values if isinstance(value, list) and value]


class Origins:
    """The sampled nodes of earlier jobs, by the keys under which core caches their results."""

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
        while len(self._sampled) > MOST_ORIGINS:
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
