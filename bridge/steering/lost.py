"""Steering that belongs to no sampler run: noticed at the end of a prompt, and where a report asks for it.

A sampler may run the model in a loop of its own, sample with another model than the one that is steered, or take a
merge's first model alone. Then Apply Safety Steering succeeds and nothing is steered.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy_execution.graph_utils import ExecutionBlocker
from comfy_execution.progress import get_progress_state
from comfy_execution.utils import get_executing_context

from ...safety_steering.errors import NotSteeredError
from ...safety_steering.steering.trace import NO_RUN, RunTrace
from .apply import STEERINGS, Steering, steerings_of
from .run_log import NodeRuns
from .running import cached_output, real_id, result_key

OWN = "SafetySteering_"
HANDED_ON = {"MODEL", "GUIDER"}
PLAIN = {"STRING", "INT", "FLOAT", "BOOLEAN"}  # a node that gives only these looks at a model and does not sample


@dataclass(frozen=True)
class Lost:
    """A steering without a run. node_id: of the node that made it; sentence: which node did not act, and the reason."""

    node_id: str
    steering: Steering
    reason: str
    sentence: str


def tell_lost(executor: Any, prompt_id: str) -> None:
    """Tell of each steering of an ended prompt that belongs to no run."""
    try:
        _tell_lost(executor, prompt_id)
    except Exception:  # a prompt that has succeeded must not fail by being looked at
        logging.exception("Safety Steering: it could not be told whether every Apply Safety Steering acted")


def _tell_lost(executor: Any, prompt_id: str) -> None:
    """Log each steering of the prompt that no run belongs to, and show it on its Apply Safety Steering."""
    for lost in lost_steerings(executor, prompt_id):
        logging.warning("Safety Steering: %s", lost.sentence)
        trace = RunTrace(NO_RUN, lost.steering.described, reason=lost.reason, prompt_id=prompt_id, node_id=lost.node_id)
        lost.steering.tell(trace)
        shown = executor.history_result["outputs"].setdefault(real_id(lost.node_id), {})
        shown["text"] = (*shown.get("text", ()), f"Warning: {trace.summary()}")


def lost_steerings(executor: Any, prompt_id: str) -> Iterator[Lost]:
    """Each steering of an ended prompt that belongs to no sampler run; none if the prompt failed."""
    if all(event != "execution_success" for event, _ in executor.status_messages):
        return
    progress = get_progress_state()
    cached = {node for event, data in executor.status_messages if event == "execution_cached" for node in data["nodes"]}
    executed = set(progress.nodes) - cached
    graph = {node: progress.dynprompt.get_node(node) for node in progress.dynprompt.all_node_ids()}
    for node in sorted(node for node, entry in graph.items() if _steers(entry)):
        steering = _steering_of(node, executor)
        behind = executed & set(_samplers_behind(node, graph))
        samplers = sorted(n for n in behind if not isinstance(cached_output(n, executor), ExecutionBlocker))
        if steering is None or steering.off or steering.log.ran_in(prompt_id) or not samplers:
            continue
        told = ", ".join(_title(other, graph[other]) for other in samplers)
        reason = f"the model went to {told}, and no steered run followed. Wire it to the input that is sampled."
        yield Lost(node, steering, reason, f"{_title(node, graph[node])} did not act: {reason}")


def _steers(entry: Mapping[str, Any]) -> bool:
    """Whether a node of a graph is one of ours that gives a steered model."""
    from nodes import NODE_CLASS_MAPPINGS

    kind = entry["class_type"]
    return kind.startswith(OWN) and "MODEL" in map(str, NODE_CLASS_MAPPINGS[kind].RETURN_TYPES)


def _title(node: str, entry: Mapping[str, Any]) -> str:
    from nodes import NODE_DISPLAY_NAME_MAPPINGS

    return f"{NODE_DISPLAY_NAME_MAPPINGS.get(entry['class_type'], entry['class_type'])} (node {node})"


def _samplers_behind(node: str, graph: Mapping[str, Any]) -> Iterator[str]:
    """The nodes that a node's model comes to, through those that hand it on, and that make something else of it."""
    from nodes import NODE_CLASS_MAPPINGS

    waiting, seen = [(node, 0)], set()
    while waiting:
        link = waiting.pop()
        for other, entry in graph.items():
            if (link, other) in seen or list(link) not in entry["inputs"].values():
                continue
            seen.add((link, other))
            types = [str(kind) for kind in NODE_CLASS_MAPPINGS[entry["class_type"]].RETURN_TYPES]
            waiting += [(other, index) for index, kind in enumerate(types) if kind in HANDED_ON]
            if set(types) - HANDED_ON - PLAIN and not entry["class_type"].startswith(OWN):
                yield other


def _steering_of(node: str, executor: Any = None) -> Steering | None:
    """What one of our nodes put on its model in the running prompt, also if core had its result in the cache."""
    model = cached_output(node, executor)
    if isinstance(model, ModelPatcher):
        return next(reversed(steerings_of(model)), None)
    return STEERINGS.get(node)


def runs_of_latent(model: ModelPatcher) -> list[tuple[Steering, list[NodeRuns]]]:
    """For the running node: the runs of each steering on `model` that made what is connected to its input `samples`.

    Raises:
        NotSteeredError: a steering on the model, or one in the latent's graph, steered none of the runs that made it.
    """
    context = get_executing_context()
    dynprompt = get_progress_state().dynprompt
    if context is None or not dynprompt.has_node(context.node_id):
        return [(steering, steering.log.of_results()) for steering in steerings_of(model)]
    nodes = _ancestors(dynprompt, dynprompt.get_node(context.node_id)["inputs"].get("samples"))
    results = {result_key(context.prompt_id, node) for node in nodes}
    applied = [_steering_of(node) for node in nodes if _steers(dynprompt.get_node(node))]
    steerings = dict.fromkeys([*steerings_of(model), *filter(None, applied)])
    found = [(steering, steering.log.of_results(results)) for steering in steerings]
    lost = [steering for steering, runs in found if not runs and not steering.off]
    if lost:
        made = [steering.node_id for steering in lost if dynprompt.has_node(steering.node_id)]
        names = ", ".join(_title(node, dynprompt.get_node(node)) for node in made) or "its model"
        raise NotSteeredError(
            f"This latent was made without the steering of {names}: no run that made it was steered. Its sampler runs "
            "the model in its own way, or samples another model. Steer the model that is sampled, with a sampler of "
            "ComfyUI."
        )
    return found


def _ancestors(dynprompt: Any, link: Any) -> Collection[str]:
    """The nodes that a link comes from, near and far."""
    found: dict[str, None] = {}
    waiting = [link]
    while waiting:
        link = waiting.pop()
        if isinstance(link, list) and len(link) == 2 and dynprompt.has_node(link[0]) and link[0] not in found:
            found[link[0]] = None
            waiting += dynprompt.get_node(link[0])["inputs"].values()
    return found
