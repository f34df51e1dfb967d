"""What a submitted graph may do on a guarded server: each node against the policy, before a job is queued and again
before each node runs, when values that came over links are known and a node may have become a graph of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import folder_paths

import nodes as core_nodes

from ...guardrail.policy import Policy
from ...safety_steering.errors import SafetySteeringError
from ...safety_steering.vectors.vector import SafetyVector
from ..folders import VECTORS, find, sha256_of

WEIGHTS = {"MODEL", "CLIP", "VAE", "CLIP_VISION", "CONTROL_NET", "LORA_MODEL"}
OWN = "SafetySteering_"
OWN_HARMLESS = {
    f"{OWN}{name}"
    for name in (
        "LoadSafetyVector",
        "LoadSafetyAlignment",
        "TransferDirection",
        "CategoryMixer",
        "ApplySafetySteering",
        "SteeringReport",
    )
}
# They write files that they do not tell the server about, or send frames that are no file: nothing could be signed.
UNSIGNED = {
    "SaveImageWebsocket",
    "SaveImageDataSetToFolder",
    "SaveImageTextDataSetToFolder",
    "SaveTrainingDataset",
}
FREE_PATH = re.compile(r"^\s*(/|\\|~[^\s\\/]*[\\/]|[A-Za-z]:[\\/]|file:)|(^|[\\/])\s*\.\.\s*([\\/]|$)|\x00")


class Refused(SafetySteeringError):
    """The policy refuses a node of a graph. node_id: which one, or empty for the whole graph."""

    def __init__(self, sentence: str, node_id: str = "") -> None:
        super().__init__(sentence)
        self.node_id = node_id


@dataclass(frozen=True)
class NodeFacts:
    """What a node class is, read off the class. takes: input name -> type; texts: inputs for text of several lines."""

    names: frozenset[str]
    takes: Mapping[str, str]
    texts: frozenset[str]
    gives: tuple[str, ...]
    is_output: bool
    is_api: bool


@dataclass(frozen=True)
class NodeUse:
    """A node with the values it has now. values: input name -> the values known for it; links are left out."""

    name: str
    facts: NodeFacts
    values: Mapping[str, list[Any]]

    def strings(self) -> Iterator[tuple[str, str]]:
        """Input name and value of every text."""
        for name, values in self.values.items():
            yield from ((name, value) for value in values if isinstance(value, str))


def check_prompt(prompt: Any, policy: Policy) -> None:
    """Raise Refused unless the policy lets every node of a graph, as submitted, run."""
    if not isinstance(prompt, dict):
        raise Refused("The prompt is no graph. Send an object that maps node ids to nodes.")
    most = policy.settings.limits.nodes
    if len(prompt) > most:
        raise Refused(
            f"The graph has {len(prompt)} nodes; this server takes {most} (limits.nodes). Send a smaller one."
        )
    for node_id, node in prompt.items():
        named = node.get("class_type") if isinstance(node, dict) else None
        inputs = node.get("inputs", {}) if isinstance(node, dict) else None
        if not isinstance(named, str) or not isinstance(inputs, dict):
            raise Refused("The node is malformed. Give it a class_type and an object of inputs.", str(node_id))
        if named in core_nodes.NODE_CLASS_MAPPINGS:  # core itself refuses the others
            values = {name: [_unwrapped(value)] for name, value in inputs.items() if not isinstance(value, list)}
            check_node(core_nodes.NODE_CLASS_MAPPINGS[named], values, policy, node_id, named)


def check_node(
    node_class: type, values: Mapping[str, list[Any]], policy: Policy, node_id: str, name: str | None = None
) -> None:
    """Raise Refused unless the policy lets a node of this class run with these values."""
    facts = facts_of(node_class)
    use = NodeUse(name or min(facts.names, default=node_class.__name__), facts, values)
    for check in CHECKS:
        for complaint in check(use, policy):
            raise Refused(f"{use.name}: {complaint}", str(node_id))


def _unwrapped(value: Any) -> Any:
    """Core lets a client wrap a plain value, so that a list is no link."""
    return value["__value__"] if isinstance(value, dict) and "__value__" in value else value


@cache
def facts_of(node_class: Any) -> NodeFacts:
    """The facts of a node class; the class may be registered under several names."""
    inputs = node_class.INPUT_TYPES()
    declared = {**inputs.get("required", {}), **inputs.get("optional", {})}
    options = {name: spec[1] for name, spec in declared.items() if len(spec) > 1 and isinstance(spec[1], dict)}
    return NodeFacts(
        names=frozenset(name for name, known in core_nodes.NODE_CLASS_MAPPINGS.items() if known is node_class),
        takes={name: spec[0] if isinstance(spec[0], str) else "COMBO" for name, spec in declared.items()},
        texts=frozenset(name for name, option in options.items() if option.get("multiline")),
        gives=tuple(str(kind) for kind in node_class.RETURN_TYPES or ()),
        is_output=bool(getattr(node_class, "OUTPUT_NODE", False)),
        is_api=bool(getattr(node_class, "API_NODE", False)),
    )


def _allowed_class(use: NodeUse, policy: Policy) -> Iterable[str]:
    names = use.facts.names or {use.name}
    if not any(policy.allows_node(name) for name in names):
        yield "this server does not offer this kind of node. Remove it."
    if names & UNSIGNED:
        yield "its files could not be signed. Use Save Image or Save Video."


def _api_node(use: NodeUse, policy: Policy) -> Iterable[str]:
    if use.facts.is_api and not policy.settings.permits.api_nodes:
        yield "nodes that call other services are not permitted here, since their results are not steered. Remove it."


def _merge_or_save(use: NodeUse, policy: Policy) -> Iterable[str]:
    if policy.settings.permits.merge_and_save_models:
        return
    facts, taken = use.facts, list(use.facts.takes.values())
    for kind in WEIGHTS & set(facts.gives):
        if taken.count(kind) > 1 or any("merge" in name.lower() for name in facts.names):
            yield "merging models is not permitted here. Use a model that the host offers."
    if facts.is_output and WEIGHTS & set(taken) and not facts.names & OWN_HARMLESS:
        yield "saving models, or taking them apart, is not permitted here. Remove it."


def _own_fit_or_save(use: NodeUse, policy: Policy) -> Iterable[str]:
    own = {name for name in use.facts.names if name.startswith(OWN)}
    if own - OWN_HARMLESS and not policy.settings.permits.fit_and_save_nodes:
        yield "making and saving safety vectors is not permitted here. Remove it."


def _negative_strength(use: NodeUse, policy: Policy) -> Iterable[str]:
    if policy.settings.permits.negative_strength:
        return
    if f"{OWN}ApplySafetySteering" in use.facts.names:
        for strength in use.values.get("strength", []):
            if not _at_least_zero(strength):
                yield f"the strength {strength} steers away from safety, which is not permitted here. Use 0 or more."
        for vector in use.values.get("safety_vector", []):
            if isinstance(vector, SafetyVector) and any(weight < 0 for weight in vector.mix.values()):
                yield "a weight of the mix is below 0, which is not permitted here. Use 0 or more."


def _at_least_zero(number: Any) -> bool:
    try:
        return float(number) >= 0
    except (TypeError, ValueError):
        return True  # no number: core refuses it with its own sentence


def _listed_vector(use: NodeUse, policy: Policy) -> Iterable[str]:
    if f"{OWN}LoadSafetyVector" not in use.facts.names:
        return
    for label in use.values.get("vector", []):
        path = find(VECTORS, str(label))
        if not policy.allows_vector(sha256_of(path)):
            yield f"the file {path.name} is not one of the safety vectors of this host. Choose another."


def _listed_lora(use: NodeUse, policy: Policy) -> Iterable[str]:
    if policy.settings.allow.loras is None:
        return
    if "LORA_MODEL" in (*use.facts.gives, *use.facts.takes.values()):
        yield "LoRAs that are made in a graph are not permitted here. Load one that the host offers."
    for name, value in use.strings():
        if "lora" in name.lower() and use.facts.takes.get(name, "COMBO") == "COMBO":
            path = folder_paths.get_full_path("loras", value)
            if path is None or not policy.allows_lora(sha256_of(Path(path))):
                yield f"the LoRA '{value}' is not one of those that this host permits. Choose another."


def _free_path(use: NodeUse, policy: Policy) -> Iterable[str]:
    if policy.settings.permits.free_paths:
        return
    for name, value in use.strings():
        if name not in use.facts.texts and len(value.strip()) > 1 and FREE_PATH.search(value):
            yield f"'{name}' leads out of the server's folders, which is not permitted here. Give a plain file name."


CHECKS: tuple[Callable[[NodeUse, Policy], Iterable[str]], ...] = (
    _allowed_class,
    _api_node,
    _merge_or_save,
    _own_fit_or_save,
    _negative_strength,
    _free_path,
    _listed_vector,
    _listed_lora,
)
