"""The policy's steering inside text encoders: of every prompt that a CLIP reads, and the proof of it at a sampler run.

A rule whose vector has hook points `encoder.<layer>` is applied to each CLIP that it was made for, while it reads. What
was read, and by which rules, is kept by core's key of the node that asked for it, so that a prompt out of core's cache
counts as what it is. Before a run of a rule's model, all that its conditioning was made from must have been read so.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from comfy_execution.progress import get_progress_state
from comfy_execution.utils import get_executing_context

from ....guardrail.policy import Policy, Rule
from ....safety_steering.errors import MismatchError, NotSteeredError
from ....safety_steering.steering.trace import RunTrace
from ...language_models.encoder_fit import check_fits_encoder
from ...steering.encoder import EncoderSteering, encoder_steerings_of
from ...steering.lost import ancestors
from ...steering.running import result_key
from ..choke_points import Wrap
from ..rule_settings import encoder_settings
from .job import Job
from .node_facts import facts_of

MOST_READ = 65_536  # nodes that read prompts; one that is forgotten counts as not steered
HOST = (
    "Only the host can change that: by offering the text encoder that the rule's vector was made for, or by taking "
    "encoder.<layer> out of the rule's hook_points."
)
REPLACED = "The graph's own steering inside the text encoder was replaced by the policy's steering (own_apply)."


@dataclass
class Read:
    """What one node had read in one job. rules: that steered all of it. traces: of each rule and text."""

    prompt_id: str
    rules: frozenset[Rule]
    traces: list[tuple[Rule, RunTrace]] = field(default_factory=list)


class EncodeGuard:
    """Steers what CLIPs read in the job that `current_job` names; without one it does nothing."""

    def __init__(self, current_job: Callable[[], Job | None]) -> None:
        self._current_job = current_job
        self._policy: Policy | None = None
        self._steerings: dict[Rule, EncoderSteering] = {}
        self._read: OrderedDict[Hashable, Read] = OrderedDict()
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
        self._note(job, frozenset(fitting))
        return result

    def _fitting(self, clip: Any) -> list[Rule]:
        return [rule for rule in self._steerings if _fits(rule, clip)]

    def _take(self, policy: Policy) -> None:
        """Take over a policy; what was read under another one is forgotten, as core's cache is."""
        if policy is not self._policy:
            self._policy = policy
            inside = {rule: encoder_settings(rule) for rule in policy.rules}
            self._steerings = {rule: EncoderSteering(rule.vector, how) for rule, how in inside.items() if how}
            self._read.clear()

    def _note(self, job: Job, rules: frozenset[Rule]) -> None:
        key = _key(job, job.node_id)
        known = self._read.pop(key, None)
        if known is None or known.prompt_id != job.prompt_id:
            known = Read(job.prompt_id, rules)
        self._read[key] = replace(known, rules=known.rules & rules)
        self._read[key].traces += [(rule, self._steerings[rule].last) for rule in rules]
        while len(self._read) > MOST_READ:
            self._read.popitem(last=False)

    def traces(self, job: Job, rules: tuple[Rule, ...]) -> list[RunTrace]:
        """What the rules' steering inside text encoders did to the prompts of the sampler run that now begins.

        Raises:
            NotSteeredError: a rule steers inside a text encoder, and a prompt of the run was not read so.
        """
        self._take(job.policy)
        inside = [rule for rule in rules if rule in self._steerings]
        nodes = list(_made_from(job)) if inside else []
        found = []
        for rule in inside:
            read = {node: self._read.get(_key(job, node)) for node in nodes}
            steered = [known for known in read.values() if known is not None and rule in known.rules]
            others = [n for n, known in read.items() if (rule not in known.rules if known else _brings(n))]
            if others or not steered:
                which = ", ".join(map(job.flow.title, others[:3])) or "no node of this graph"
                raise NotSteeredError(
                    f"The rule '{rule.name}' of the host's safety policy steers inside the text encoder, and the "
                    f"prompts of this run come from {which}, where it could not. {HOST}"
                )
            found += [trace for known in steered for its_rule, trace in known.traces if its_rule is rule]
        return found


def _fits(rule: Rule, clip: Any) -> bool:
    settings = encoder_settings(rule)
    assert settings is not None
    try:
        check_fits_encoder(rule.vector, settings.hook_points, clip)
    except MismatchError:
        return False
    return True


def _key(job: Job, node_id: str) -> Hashable:
    return result_key(job.prompt_id, node_id)


def _made_from(job: Job) -> Iterator[str]:
    """The node that samples and all nodes that it takes something from, near and far, also those that it came from."""
    dynprompt = get_progress_state().dynprompt
    context = get_executing_context()
    waiting, seen = [context.node_id if context else job.node_id], set()
    while waiting:
        node = waiting.pop()
        for other in ancestors(dynprompt, [node, 0]):
            if other not in seen:
                seen.add(other)
                yield other
                if parent := dynprompt.get_parent_node_id(other):
                    waiting.append(parent)


def _brings(node: str) -> bool:
    """Whether a node gives conditioning and takes none: it must have had a prompt read."""
    from nodes import NODE_CLASS_MAPPINGS

    dynprompt = get_progress_state().dynprompt
    facts = facts_of(NODE_CLASS_MAPPINGS[dynprompt.get_node(node)["class_type"]])
    return "CONDITIONING" in facts.gives and "CONDITIONING" not in facts.takes.values()
