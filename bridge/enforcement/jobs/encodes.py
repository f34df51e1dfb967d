"""The policy's steering inside text encoders: of every prompt that a CLIP reads, and the proof of it at a sampler run.

A rule whose vector has hook points `encoder.<layer>` is applied to each CLIP that it was made for, while it reads. By
which rules a prompt was read is noted on the tensors that the CLIP gives, and follows them from node to node, also out
of core's cache. Before a run of a rule's model, all conditioning that goes into it must have been read so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from comfy_execution.utils import get_executing_context

from ....guardrail.policy import Policy, Rule
from ....safety_steering.errors import MismatchError, NotSteeredError
from ....safety_steering.steering.trace import RunTrace
from ...language_models.encoder_fit import check_fits_encoder
from ...steering.encoder import EncoderSteering, encoder_steerings_of
from ..choke_points import Wrap
from ..prompt_origins import PromptOrigins, Reading, prompts_of, tensors_of
from ..rule_settings import encoder_settings
from .job import Job
from .node_facts import NodeFacts

HOST = (
    "Only the host can change that: by offering the text encoder that the rule's vector was made for, or by taking "
    "encoder.<layer> out of the rule's hook_points."
)
REPLACED = "The graph's own steering inside the text encoder was replaced by the policy's steering (own_apply)."


@dataclass
class Running:
    """A node that runs. derives: a node of core: what it makes of conditioning was read as that was. readings: of the
    prompts that it has had read itself."""

    title: str
    derives: bool
    inputs: Mapping[str, Sequence[Any]]
    readings: list[Reading] = field(default_factory=list)

    def sources(self, origins: PromptOrigins) -> tuple[Reading, ...]:
        """What conditioning comes from that the node has made."""
        taken = list(prompts_of(list(self.inputs.values()))) if self.derives else []
        found = dict.fromkeys([*self.readings, *origins.of(taken)])
        return tuple(found) if found and all(map(origins.knows, taken)) else (*found, Reading(self.title))


class EncodeGuard:
    """Steers what CLIPs read in the job that `current_job` names; without one it does nothing."""

    def __init__(self, current_job: Callable[[], Job | None]) -> None:
        self._current_job = current_job
        self._policy: Policy | None = None
        self._steerings: dict[Rule, EncoderSteering] = {}
        self._origins = PromptOrigins()
        self._running: dict[str, Running] = {}
        self._reading = False

    def wraps(self) -> dict[str, Wrap]:
        """Choke point -> what is put around its function."""
        return {
            "encode": self._around_encode,
            "scheduled encode": self._around_encode,
            "tokenize": self._around_tokenize,
        }

    def _around_tokenize(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def tokenize(clip: Any, text: str, return_word_ids: bool = False, **kwargs: Any) -> Any:
            job = self._current_job()
            if job is not None and kwargs:  # of a node that has a template of its own
                self._take(job.policy)
                for steering in (self._steerings[rule] for rule in self._fitting(clip)):
                    steering.note_frames(clip, lambda probe: original(clip, probe, **kwargs))
            return original(clip, text, return_word_ids, **kwargs)

        return tokenize

    def _around_encode(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def encode(clip: Any, *args: Any, **kwargs: Any) -> Any:
            job = self._current_job()
            if job is None or self._reading:  # core's two functions call each other
                return original(clip, *args, **kwargs)
            self._reading = True
            try:
                with job.refusing():
                    return self._encode(job, clip, lambda: original(clip, *args, **kwargs))
            finally:
                self._reading = False

        return encode

    def _encode(self, job: Job, clip: Any, original: Callable[[], Any]) -> Any:
        own = encoder_steerings_of(clip)
        if own and job.policy.settings.own_apply == "replace":
            for steering in own:
                steering.stand_aside()
            job.warnings.append(REPLACED)
        self._take(job.policy)
        fitting = self._fitting(clip)
        with ExitStack() as stack:
            for rule in fitting:
                stack.enter_context(self._steerings[rule].reading(clip))
            result = original()
        self._note(job, fitting, result)
        return result

    def _fitting(self, clip: Any) -> list[Rule]:
        return [rule for rule in self._steerings if _fits(rule, clip)]

    def _take(self, policy: Policy) -> None:
        """Take over a policy; what was read under another one is forgotten, as core's cache is."""
        if policy is not self._policy:
            self._policy = policy
            inside = {rule: encoder_settings(rule) for rule in policy.rules}
            self._steerings = {rule: EncoderSteering(rule.vector, how) for rule, how in inside.items() if how}
            self._origins.clear()
            self._running.clear()

    def begin(self, job: Job, node_id: str, facts: NodeFacts, inputs: Mapping[str, Sequence[Any]]) -> None:
        """Note what a node takes, just before it runs."""
        self._take(job.policy)
        if self._steerings:
            self._running[node_id] = Running(job.flow.title(node_id), facts.is_core, inputs)

    def end(self, node_id: str, output: Sequence[Any], expanded: bool) -> None:
        """Note what the conditioning in a node's results was read from; what is new in a graph that a node became, the
        node has brought."""
        running = self._running.get(node_id)
        if running is not None:
            self._origins.derive(output, (Reading(running.title),) if expanded else running.sources(self._origins))

    def forget_nodes(self) -> None:
        """At the end of a job."""
        self._running.clear()

    def _note(self, job: Job, rules: Sequence[Rule], result: Any) -> None:
        if not self._steerings:
            return
        node_id = running_node(job)
        traces = tuple((rule, self._steerings[rule].last) for rule in rules)
        reading = Reading(job.flow.title(node_id), frozenset(rules), traces)
        self._origins.read(result, reading)
        if node_id in self._running:
            self._running[node_id].readings.append(reading)

    def traces(self, job: Job, rules: tuple[Rule, ...], conds: Mapping[str, Iterable[Any]]) -> list[RunTrace]:
        """What the rules' steering inside text encoders did to the prompts of the sampler run that now begins.

        conds: of the run's guider, lists of mappings with the conditioning at `cross_attn`.

        Raises:
            NotSteeredError: a rule steers inside a text encoder, and a prompt of the run was not read so.
        """
        self._take(job.policy)
        inside = [rule for rule in rules if rule in self._steerings]
        readings = self._readings(job, conds) if inside else ()
        found: dict[int, RunTrace] = {}
        for rule in inside:
            others = [reading.title for reading in readings if rule not in reading.rules]
            if others or not readings:
                which = ", ".join(list(dict.fromkeys(others))[:3]) or "no node of this graph"
                raise NotSteeredError(
                    f"The rule '{rule.name}' of the host's safety policy steers inside the text encoder, and the "
                    f"prompts of this run come from {which}, where it could not. {HOST}"
                )
            found |= {id(trace): trace for reading in readings for its, trace in reading.traces if its is rule}
        return list(found.values())

    def _readings(self, job: Job, conds: Mapping[str, Iterable[Any]]) -> tuple[Reading, ...]:
        """All that went into a run's conditioning: what no node was seen to read or to hand on was brought."""
        entries = [entry for role in conds.values() for entry in role]
        known = self._origins.of(tensors_of(entries))
        prompts = [prompt for entry in entries if isinstance(prompt := entry.get("cross_attn"), torch.Tensor)]
        if all(map(self._origins.knows, prompts)):
            return known
        running = self._running[running_node(job)]
        return tuple(dict.fromkeys([*known, *running.sources(self._origins)]))


def running_node(job: Job) -> str:
    """The node that runs in this thread; the job's latest, if core does not say."""
    context = get_executing_context()
    return str(context.node_id) if context else job.node_id


def _fits(rule: Rule, clip: Any) -> bool:
    settings = encoder_settings(rule)
    assert settings is not None
    try:
        check_fits_encoder(rule.vector, settings.hook_points, clip)
    except MismatchError:
        return False
    return True
