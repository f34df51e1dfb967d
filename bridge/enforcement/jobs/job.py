"""One job of a guarded server: its sampler runs, its output files, and whether it is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ....guardrail.content import Content, SamplerRun
from ....guardrail.errors import Refused
from ....guardrail.job_record import NOT_STEERED, VERDICTS
from ....guardrail.plain_text import node_name
from ....guardrail.policy import Policy
from ....safety_steering.errors import SafetySteeringError
from ....safety_steering.steering.trace import RunTrace
from .flow import Flow
from .gate import Seen


@dataclass(frozen=True)
class OutputFile:
    """A file that a node of the job wrote and that is served: what it is made of, and its record."""

    path: Path
    content: Content
    record: Mapping[str, Any]


@dataclass(eq=False)
class Job:
    """What belongs to one running job. It keeps the policy that it began with.

    flow: what its values are made of. runs, traces: the sampler runs, and of each the trace of each rule. models:
    weight fingerprint -> family. seen: what the output gate has seen of a node's inputs;
    held_back: why frames were replaced. own_files: of vectors and the like, that this pack's nodes
    wrote. dropped: nodes whose previews were not shown, and why. showed_words: whether a node showed text. runs_open:
    sampler runs that go on. healed: how often the guardrail had been put back when it began. refusal: why the job is
    refused, or empty. node_id: the node that runs.
    """

    prompt_id: str
    prompt: Mapping[str, Mapping[str, Any]]
    policy: Policy
    flow: Flow
    runs: list[SamplerRun] = field(default_factory=list)
    traces: list[RunTrace] = field(default_factory=list)
    models: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    outputs: dict[Path, OutputFile] = field(default_factory=dict)
    seen: dict[str, Mapping[str, Seen]] = field(default_factory=dict)
    held_back: dict[str, str] = field(default_factory=dict)
    own_files: set[Path] = field(default_factory=set)
    dropped: dict[str, str] = field(default_factory=dict)
    showed_words: bool = False
    runs_open: int = 0
    healed: int = 0
    refusal: str = ""
    node_id: str = ""

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Refuses the whole job for a SafetySteeringError raised inside, even if a node catches it."""
        try:
            yield
        except SafetySteeringError as error:
            told = self.told(str(error), self.node_id)
            self.refusal = self.refusal or told
            raise Refused(told, self.node_id) from error

    def told(self, sentence: str, node_id: str) -> str:
        """A sentence about a node that names it by its id and title."""
        node = self.prompt.get(node_id)
        return sentence if node is None or sentence.startswith("Node ") else f"{node_name(node_id, node)}: {sentence}"

    @property
    def is_gated(self) -> bool:
        """Whether the output gate judges what leaves."""
        return self.policy.settings.output_gate.mode != "off"

    @property
    def verdict(self) -> str:
        """The worst verdict of the outputs; of the sampler runs, if there is no output."""
        if self.refusal and self.models:
            return NOT_STEERED
        contents = [output.content for output in self.outputs.values()]
        runs = frozenset({*self.runs, *self.flow.reused})
        return max((content.verdict for content in contents or [Content(runs)]), key=VERDICTS.index)
