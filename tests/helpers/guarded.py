"""A guarded ComfyUI for the tests: a policy in its private folder, a key to sign with, and what its audit says."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from audit_lines import read_log
from comfy_server import ComfyServer, link_pack
from safety_steering_pack.commands.api_graph import PromptGraph
from safety_steering_pack.commands.comfy_client import PromptRejected, Run
from safety_steering_pack.guardrail.keys import ENVIRONMENT as SIGNING_KEY
from safety_steering_pack.safety_steering.files import file_sha256
from safety_steering_pack.safety_steering.vectors.file import save_vector
from safety_steering_pack.safety_steering.vectors.vector import SafetyVector
from steered_graphs import FAMILIES, apply_vector, load_latent, put_vector, sample
from tiny.graphs import Steer, save_latent
from vector_algebra import select

NOT_SERVING = 503
HOSTILE_FOLDER = "hostile_nodes"
KEY = "c2FmZXR5IHN0ZWVyaW5nIHRlc3Qga2V5IDMyIGJ5dGU="  # for tests only: base64 of 32 bytes that everybody can read


@dataclass(frozen=True)
class PolicyRule:
    """One rule: the family it is for, where it steers, and how strongly. `settings`: any more keys of a rule.

    made: its vector; None: the family's random one.
    """

    key: str = "wan"
    hook_points: tuple[str, ...] = ()
    strength: float = 3.0
    match: str = ""
    settings: dict[str, Any] = field(default_factory=lambda: {"intervention": "add"})
    made: SafetyVector | None = None

    @property
    def vector(self) -> SafetyVector:
        """The vector with all its hook points."""
        return self.made or FAMILIES[self.key].vector()

    @property
    def points(self) -> tuple[str, ...]:
        """The hook points named, or the family's one."""
        return self.hook_points or (FAMILIES[self.key].block,)

    @property
    def file_name(self) -> str:
        """The vector's file beside the policy."""
        return f"{self.key}_{'_'.join(self.points)}.safetensors"


class GuardedServer(ComfyServer):
    """A real server under a policy. `set_policy` replaces the policy as an operator would: by renaming a file."""

    def __init__(self, base_directory: Path, rules: tuple[PolicyRule, ...] = (PolicyRule(),), **keys: Any) -> None:
        super().__init__(base_directory, start_timeout=600)
        self.private = self.base_directory / "user" / "__safety_steering"
        self.private.mkdir(parents=True, exist_ok=True)
        self.set_policy(rules, **keys)

    def set_policy(self, rules: tuple[PolicyRule, ...] = (PolicyRule(),), **keys: Any) -> None:
        """Write policy and vectors; `keys` are its other keys, tables as dicts."""
        self.write_policy(policy_text(self.private, rules, **keys))

    def write_policy(self, text: str) -> None:
        """Put this text in the policy's place."""
        new = self.private / "policy.new"
        new.write_text(text, encoding="utf-8")
        new.replace(self.private / "policy.toml")

    def start(self) -> GuardedServer:
        """Start it, with hostile packs' nodes among its own and a signing key in its environment."""
        (self.base_directory / "custom_nodes").mkdir(exist_ok=True)
        link_pack(self.base_directory / "custom_nodes", HOSTILE_FOLDER, Path(__file__).with_name(HOSTILE_FOLDER))
        with environment(SIGNING_KEY, KEY):
            super().start()
        return self

    @property
    def audit(self) -> list[dict[str, Any]]:
        """Every record in the audit log, oldest first."""
        return read_log(self.private / "audit")

    def record_of(self, run: Run) -> dict[str, Any]:
        """The one audit line of a job."""
        (record,) = [record for record in self.audit if record["prompt_id"] == run.prompt_id]
        return record

    def status(self) -> dict[str, Any]:
        """What the operator sees, also of a server that serves nobody."""
        try:
            return dict(self.client.request("/safety_steering/status"))
        except urllib.error.HTTPError as error:
            if error.code != NOT_SERVING:
                raise
            return dict(json.loads(error.read()))


def policy_text(folder: Path, rules: tuple[PolicyRule, ...], **keys: Any) -> str:
    """A policy file's text; the rules' vectors are put into `folder`."""
    lines = ["version = 1", *(f"{key} = {_toml(value)}" for key, value in keys.items() if not isinstance(value, dict))]
    for number, rule in enumerate(rules):
        path = folder / rule.file_name
        if not path.exists():
            save_vector(select(rule.vector, hook_points=rule.points), path)
        settings = {
            "name": f"rule {number}",
            "vector": path.name,
            "sha256": file_sha256(path),
            "strength": rule.strength,
            "norm": "none",
            "hook_points": ", ".join(rule.points),
            **rule.settings,
        }
        match = rule.match or f'family = "{FAMILIES[rule.key].family}"'
        lines += ["[[rules]]", f"match = {{ {match} }}", *(f"{key} = {_toml(v)}" for key, v in settings.items())]
    for name, table in keys.items():
        if isinstance(table, dict):
            lines += [f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def gate(mode: str, judge: str = "score") -> dict[str, Any]:
    """The policy's output gate, with the tests' own judge."""
    return {"mode": mode, "thresholds": {"violence": 0.5}, "judge": f"tall_frames_judge:{judge}"}


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


@contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    """A variable of this process's environment, for as long as the context lasts."""
    former = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if former is None:
            del os.environ[name]
        else:
            os.environ[name] = former


def guarded_copy(base_directory: Path, folder: Path) -> Path:
    """A base directory of its own that shares the tiny checkpoints of another."""
    folder.mkdir()
    shutil.copytree(base_directory / "models", folder / "models", copy_function=os.link)
    return folder


_nonces = itertools.count(1)


def once(graph: PromptGraph) -> dict[str, Any]:
    """The prompt, such that its samplers run although core's cache holds the same ones."""
    for node in graph.prompt.values():
        if "Sampler" in node["class_type"] and "Select" not in node["class_type"]:
            node["inputs"]["nonce"] = next(_nonces)
    return graph.prompt


@dataclass(frozen=True)
class Outcome:
    """A job that ran: how, the latents it saved (None if it did not get that far), and its audit line."""

    run: Run
    latent: torch.Tensor | None
    record: dict[str, Any]


def sample_guarded(
    server: GuardedServer, steering: Steer | None = None, *, key: str = "wan", **options: Any
) -> Outcome:
    """Run a family's graph, with what a client did to its model in `steering`, and save its latents."""
    graph = PromptGraph()
    sampled = FAMILIES[key].graph(graph, steering, **{"steps": 2, **options})
    return outcome(server, graph, save_latent(graph, sampled.samples, "guarded").id)


def refusal_of(server: GuardedServer, graph: PromptGraph) -> str:
    """What the server says to a graph that it refuses, before it is queued, or while it runs. Nothing came of it."""
    try:
        run = server.client.run(once(graph))
    except PromptRejected as rejected:
        refusal, record = rejected.error, server.audit[-1]
    else:
        assert run.error is not None, f"it ran: {run.status}"
        assert not server.output_files(run)
        refusal = {"type": "safety_steering_refused", "message": run.error.message}
        record = server.record_of(run)
    assert refusal["type"] == "safety_steering_refused", refusal
    assert record["decision"] == "refused"
    assert record["reason"] in refusal["message"]
    assert record["outputs"] == []
    return str(refusal["message"])


def by_hand(server: ComfyServer, rule: PolicyRule = PolicyRule(), **options: Any) -> torch.Tensor:
    """The latents that an Apply with a rule's settings gives on a server without a policy: what the guard must give."""
    file_name = put_vector(server, f"by_hand_{rule.key}", select(rule.vector, hook_points=rule.points))
    settings = {"strength": rule.strength, "norm": "none", "hook_points": ", ".join(rule.points), **rule.settings}
    return sample(server, rule.key, apply_vector(file_name, **settings), **options).latent


def moved(record: dict[str, Any]) -> list[float]:
    """How far a job's states were moved along the direction, by hook point."""
    return [projection["after"] - projection["before"] for projection in record["projections"]]


def outcome(server: GuardedServer, graph: PromptGraph, saved: str) -> Outcome:
    """Run a graph that saves latents at the node `saved`."""
    run = server.client.run(once(graph))
    latent = load_latent(server, run, saved) if saved in run.outputs else None
    return Outcome(run, latent, server.record_of(run))
