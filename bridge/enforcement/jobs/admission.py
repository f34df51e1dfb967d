"""What a submitted graph may do on a guarded server: each node against the policy, before a job is queued and again
before each node runs, when values that came over links are known and a node may have become a graph of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import folder_paths

import nodes as core_nodes

from ....guardrail.errors import Refused
from ....guardrail.plain_text import node_name, shown
from ....guardrail.policy import Policy
from ....safety_steering.errors import SafetySteeringError
from ....safety_steering.vectors.mix import parse_mix
from ....safety_steering.vectors.vector import SafetyVector
from ...folders import VECTORS, find, sha256_of, vector_name
from .node_facts import NodeFacts, facts_of
from .values import PICTURE_TYPES

WEIGHTS = {"MODEL", "CLIP", "VAE", "CLIP_VISION", "CONTROL_NET", "LORA_MODEL"}
OWN = "SafetySteering_"
LONGEST_FILE_NAME = 1000
MERGE_RULE = "permits.merge_and_save_models"
NEGATIVE_RULE = "permits.negative_strength"
BELOW_ZERO = f"a weight of the mix is below 0, which is not permitted here ({NEGATIVE_RULE}). Use 0 or more."
OWN_HARMLESS = {
    f"{OWN}{name}"
    for name in (
        "LoadSafetyVector",
        "LoadSafetyAlignment",
        "TransferDirection",
        "CategoryMixer",
        "ApplySafetySteering",
        "SafeModel",
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


@dataclass(frozen=True)
class NodeUse:
    """A node with the values it has now. values: input name -> the values known for it; links are left out."""

    name: str
    facts: NodeFacts
    values: Mapping[str, list[Any]]

    def strings(self) -> Iterator[tuple[str, str]]:
        """Input name and value of every text, also of those in lists and objects, and of an object's keys."""
        for name, values in self.values.items():
            yield from ((name, text) for value in values for text in texts_of(value))


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
            values = {name: [_unwrapped(value)] for name, value in inputs.items() if not is_link(value)}
            check_node(core_nodes.NODE_CLASS_MAPPINGS[named], values, policy, node_id, node)


def check_node(
    node_class: type, values: Mapping[str, list[Any]], policy: Policy, node_id: str, node: Any = None
) -> None:
    """Raise Refused unless the policy lets a node of this class run with these values. node: as it is in the graph."""
    facts = facts_of(node_class)
    name = node["class_type"] if node else facts.name or node_class.__name__
    use = NodeUse(name, facts, values)
    for check in CHECKS:
        for complaint in check(use, policy):
            raise Refused(f"{node_name(node_id, node) if node else name}: {complaint}", str(node_id))


def texts_of(value: Any) -> Iterator[str]:
    """Every text in a plain value, however deep; objects that nodes make are left alone."""
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, str):
            yield item
        elif type(item) is dict:
            left += [*item.keys(), *item.values()]
        elif type(item) in (list, tuple):
            left += item


def is_link(value: Any) -> bool:
    """Whether an input's value in a graph is a link: a node's id, and the number of one of its results."""
    return (
        isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int | float)
    )


def _unwrapped(value: Any) -> Any:
    """Core lets a client wrap a plain value, so that a list is no link."""
    return value["__value__"] if isinstance(value, dict) and "__value__" in value else value


def _allowed_class(use: NodeUse, policy: Policy) -> Iterable[str]:
    names = use.facts.names or {use.name}
    if not any(policy.allows_node(name) for name in names):
        yield "this server does not offer this kind of node (allow.nodes). Remove it."
    if names & UNSIGNED:
        yield "its files could not be signed. Use Save Image or Save Video."


def _api_node(use: NodeUse, policy: Policy) -> Iterable[str]:
    if use.facts.is_api and not policy.settings.permits.api_nodes:
        yield (
            "nodes that call other services are not permitted here, since their results are not steered "
            "(permits.api_nodes). Remove it."
        )


def _merge_or_save(use: NodeUse, policy: Policy) -> Iterable[str]:
    facts, taken = use.facts, list(use.facts.takes.values())
    if policy.settings.permits.merge_and_save_models or any(name.startswith(OWN) for name in facts.names):
        return
    for kind in WEIGHTS & set(facts.gives):
        if taken.count(kind) > 1 or any("merge" in name.lower() for name in facts.names):
            yield f"merging models is not permitted here ({MERGE_RULE}). Use a model that the host offers."
    if "LORA_MODEL" in facts.gives and "MODEL" in taken:
        yield f"training is not permitted here ({MERGE_RULE}). Remove it."
    shows = (PICTURE_TYPES | {"CONDITIONING"}) & set(taken)  # then what it writes decides
    if facts.is_output and WEIGHTS & set(taken) and not shows:
        yield f"saving models, or taking them apart, is not permitted here ({MERGE_RULE}). Remove it."


def _own_fit_or_save(use: NodeUse, policy: Policy) -> Iterable[str]:
    own = {name for name in use.facts.names if name.startswith(OWN)}
    if own - OWN_HARMLESS and not policy.settings.permits.fit_and_save_nodes:
        yield "making and saving safety vectors is not permitted here (permits.fit_and_save_nodes). Remove it."


def _negative_strength(use: NodeUse, policy: Policy) -> Iterable[str]:
    if policy.settings.permits.negative_strength:
        return
    if f"{OWN}ApplySafetySteering" in use.facts.names:
        for strength in use.values.get("strength", []):
            if not _at_least_zero(strength):
                yield f"the strength {strength} steers away from safety and is not permitted ({NEGATIVE_RULE}). Use 0."
        for vector in use.values.get("safety_vector", []):
            if isinstance(vector, SafetyVector) and any(weight < 0 for weight in vector.mix.values()):
                yield BELOW_ZERO
    if f"{OWN}SafeModel" in use.facts.names and any(_weighs_below_zero(mix) for mix in use.values.get("mix", [])):
        yield BELOW_ZERO


def _weighs_below_zero(mix: Any) -> bool:
    try:
        return any(weight < 0 for weight in parse_mix(str(mix)).values())
    except SafetySteeringError:  # the node refuses it with its own sentence
        return False


def _at_least_zero(number: Any) -> bool:
    try:
        return float(number) >= 0
    except (TypeError, ValueError):
        return True  # no number: core refuses it with its own sentence


def _listed_vector(use: NodeUse, policy: Policy) -> Iterable[str]:
    if not {f"{OWN}LoadSafetyVector", f"{OWN}SafeModel"} & set(use.facts.names):
        return
    for label in use.values.get("vector", []):
        try:
            allowed = policy.allows_vector(sha256_of(find(VECTORS, str(label))))
        except SafetySteeringError:  # a file that may not be used is in no list
            allowed = False
        if not allowed:
            name = shown(vector_name(str(label)))
            yield f"the file {name} is not one of the safety vectors of this host (allow.vectors). Choose another."


def _listed_lora(use: NodeUse, policy: Policy) -> Iterable[str]:
    if policy.settings.allow.loras is None:
        return
    if "LORA_MODEL" in (*use.facts.gives, *use.facts.takes.values()):
        yield "LoRAs that are made in a graph are not permitted here (allow.loras). Load one that the host offers."
    if any(name.startswith("CreateHookModelAsLora") for name in use.facts.names):
        yield "a whole model as a LoRA is not permitted here (allow.loras). Load a LoRA that the host offers."
    for name, value in use.strings():
        listed = "lora" in name.lower() and use.facts.takes.get(name, "COMBO") == "COMBO"
        named = value in use.values[name]  # and not deep in an object, whose other texts mean something else
        path = folder_paths.get_full_path("loras", value) if len(value) < LONGEST_FILE_NAME else None
        allowed = path is not None and policy.allows_lora(sha256_of(Path(path)))
        if not allowed and (path is not None or (listed and named)):
            yield f"the LoRA '{shown(value)}' is not one of this host's (allow.loras). Choose another."


def _free_path(use: NodeUse, policy: Policy) -> Iterable[str]:
    if policy.settings.permits.free_paths:
        return
    for name, value in use.strings():
        if name not in use.facts.texts and len(value.strip()) > 1 and FREE_PATH.search(value):
            yield (
                f"'{shown(name)}' leads out of the server's folders, which is not permitted here (permits.free_paths). "
                "Give a plain file name."
            )


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
