"""Before and after each node of a guarded job: its inputs are checked, and its files are signed or removed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import folder_paths
import torch

import nodes as core_nodes

from ...guardrail.evidence import sidecar_of
from ...guardrail.keys import Signer
from ...safety_steering.errors import SafetySteeringError
from .admission import Refused, check_node, facts_of
from .gate import WITHOUT_FRAMES, gate_inputs
from .job import Job, ancestors, links_of
from .sealing import seal

PICTURES = {"IMAGE", "LATENT", "MASK", "VIDEO"}
SERVED = ("output", "temp")
CLOCK_TICK = 1.0  # seconds; file systems stamp files more coarsely than the clock
UNSAMPLED_REFUSED = "This comes from no sampler run of this server, so it is not delivered."
UNSEEN_REFUSED = "The output gate could not see what this node wrote, so it is not delivered."


def check_inputs(
    job: Job, node_id: str, node_class: type, values: dict[str, list[Any]]
) -> tuple[Mapping[str, list[Any]], bool]:
    """A node's inputs as it may have them, and whether the output gate held something back.

    Raises:
        SafetySteeringError: the policy refuses the node, or what it would write.
    """
    if job.refusal:  # a node has swallowed the error
        raise Refused(job.refusal, node_id)
    check_node(node_class, values, job.policy, node_id)
    if not (facts_of(node_class).is_output and _brings_pictures(values)):
        return values, False
    if _lacks_origin(job, node_id):
        raise Refused(UNSAMPLED_REFUSED, node_id)
    if not _is_gated(job, node_class):
        return values, False
    inputs, reason, judged = gate_inputs(values, job.policy)
    if judged:
        job.judged.add(node_id)
    if reason:
        job.held_back[node_id] = reason
    return inputs, bool(reason)


def take_files(job: Job, node_id: str, node_class: type, shown: Mapping[str, Any], signer: Signer | None) -> None:
    """Sign the files that a node has written, before clients are told of them; files that may not stay are removed.

    Raises:
        SafetySteeringError: they may not stay, or cannot be signed.
    """
    paths = list(announced_files(shown, job.started))
    try:
        if paths and _lacks_origin(job, node_id):
            raise Refused(UNSAMPLED_REFUSED, node_id)
        if paths and _is_gated(job, node_class) and node_id not in job.judged:
            raise Refused(UNSEEN_REFUSED, node_id)
        job.warnings += client_content(job, node_id) if paths else []
        for path in paths:
            job.outputs[path] = seal(job, path, job.sources_of(node_id), node_id in job.held_back, signer)
    except (OSError, SafetySteeringError):
        for path in paths:
            remove(path)
        raise


def client_content(job: Job, node_id: str) -> list[str]:
    """Sentences about pictures that reach an output past every sampler: what the policy steers did not make them."""
    sampled = {*job.sampled, *job.reused}
    told = []
    for name in sorted(ancestors(job.prompt, job.root_of(node_id), until=sampled) - sampled):
        node = job.prompt[name]
        node_class = core_nodes.NODE_CLASS_MAPPINGS[node["class_type"]]
        if PICTURES & set(facts_of(node_class).gives) and not links_of(node):
            told.append(
                f"Node {node_id} was also given pictures of node {name} ({node['class_type']}), past all samplers."
            )
    return told


def _brings_pictures(values: Mapping[str, list[Any]]) -> bool:
    return any(carries_pictures(value) for given in values.values() for value in given)


def _lacks_origin(job: Job, node_id: str) -> bool:
    return job.policy.settings.unsampled == "refuse" and not job.sources_of(node_id)


def _is_gated(job: Job, node_class: type) -> bool:
    return job.policy.settings.output_gate.mode != "off" and not facts_of(node_class).names & WITHOUT_FRAMES


def announced_files(shown: Mapping[str, Any], since: float) -> Iterator[Path]:
    """The files, written after `since` (seconds), that a node's ui names in the folders that the server serves."""
    for entries in shown.values():
        for entry in entries if isinstance(entries, list | tuple) else ():
            path = _path_of(entry) if isinstance(entry, dict) else None
            if path and path.is_file() and path.stat().st_mtime >= since - CLOCK_TICK:
                yield path


def _path_of(entry: Mapping[str, Any]) -> Path | None:
    folder = folder_paths.get_directory_by_type(entry["type"]) if entry.get("type") in SERVED else None
    if folder is None or not entry.get("filename"):
        return None
    path = (Path(folder) / str(entry.get("subfolder") or "") / str(entry["filename"])).resolve()
    return path if path.is_relative_to(Path(folder).resolve()) else None


def carries_pictures(value: Any) -> bool:
    """Whether a node's input is something that was, or can be made, a picture, a video or sound."""
    return (
        isinstance(value, torch.Tensor)
        or hasattr(value, "get_components")
        or (isinstance(value, dict) and bool({"samples", "waveform"} & value.keys()))
    )


def remove(path: Path) -> None:
    """Delete a file that must not be delivered, and its evidence."""
    for file in (path, sidecar_of(path)):
        file.unlink(missing_ok=True)
