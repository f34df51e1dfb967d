"""Steering that belongs to no sampler run: noticed at the end of a prompt, and where a report asks for it.

A sampler may run the model in a loop of its own, sample with another model than the one that is steered, or take a
merge's first model alone. A prompt may be read by another CLIP than the steered one. Then Apply Safety Steering
succeeds and nothing is steered.
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
from .encoder import ENCODER_STEERINGS, EncoderSteering, encoder_steerings_of
from .run_log import NodeRuns
from .running import cached_output, real_id, result_key

OWN = "SafetySteering_"
HANDED_ON = {"MODEL", "GUIDER"}
MODEL, CLIP = "MODEL", "CLIP"
ANY = {"*", "COMFY_MATCHTYPE_V3"}  # what gives any type: it hands on what it was given, if it took this
MADE = {"CONDITIONING", "LATENT", "IMAGE"}  # what a node gives that has a prompt read, or is made from one
PLAIN = {"STRING", "INT", "FLOAT", "BOOLEAN"}  # a node that gives only these looks at a model and does not sample


@dataclass(frozen=True)
class Lost:
    """A steering without a run. node_id: of the node that made it; sentence: which node did not act, and the reason."""

    node_id: str
    steering: Steering | EncoderSteering
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
        outputs, node = executor.history_result["outputs"], real_id(lost.node_id)
        shown = outputs.get(node, {})  # core's cache has it too, and tells it again: it is not changed in place
        outputs[node] = {**shown, "text": (*shown.get("text", ()), f"Warning: {trace.summary()}")}


def lost_steerings(executor: Any, prompt_id: str) -> Iterator[Lost]:
    """Each steering of an ended prompt that belongs to no sampler run, or read no prompt; none if the prompt failed."""
    if all(event != "execution_success" for event, _ in executor.status_messages):
        return
    progress = get_progress_state()
    cached = {node for event, data in executor.status_messages if event == "execution_cached" for node in data["nodes"]}
    executed = set(progress.nodes) - cached
    graph = {node: progress.dynprompt.get_node(node) for node in progress.dynprompt.all_node_ids()}
    for node in sorted(node for node, entry in graph.items() if _steers(entry)):
        behind = executed & set(_users_behind(node, MODEL, graph, executor))
        samplers = sorted(n for n in behind if not isinstance(cached_output(n, executor), ExecutionBlocker))
        names = ", ".join(_title(other, graph[other]) for other in samplers)
        title, steering = _title(node, graph[node]), _steering_of(node, executor)
        if steering and not steering.off and not steering.log.ran_in(prompt_id) and samplers:
            reason = f"the model went to {names}, and no steered run followed. Wire it to the input that is sampled."
            yield Lost(node, steering, reason, f"{title} did not act: {reason}")
        inside = _encoder_steering_of(node, executor)
        readers = executed & set(_users_behind(node, CLIP, graph, executor))
        users = sorted(other for other in {*samplers, *readers} if _gives(graph[other]) & MADE)
        unread = [other for other in users if not _was_read(inside, other, executor, prompt_id)] if inside else []
        if inside and unread:
            names = ", ".join(_title(other, graph[other]) for other in unread)
            reason = (
                f"the text encoder is steered, and {names} ran without a prompt that it has read. Wire the output clip "
                "to the nodes that read the prompts."
            )
            yield Lost(node, inside, reason, f"{title} did not act: {reason}")


def _was_read(steering: EncoderSteering, node: str, executor: Any, prompt_id: str) -> bool:
    """Whether the steered encoder read a prompt that a node's results were made from, now or before."""
    dynprompt = get_progress_state().dynprompt
    keys = {result_key(prompt_id, other, executor) for other in ancestors(dynprompt, [node, 0])}
    return bool(steering.log.of_results(keys))


def _gives(entry: Mapping[str, Any]) -> set[str]:
    """The types of what a node of a graph gives."""
    from nodes import NODE_CLASS_MAPPINGS

    return set(map(str, NODE_CLASS_MAPPINGS[entry["class_type"]].RETURN_TYPES))


def _steers(entry: Mapping[str, Any]) -> bool:
    """Whether a node of a graph is one of ours that gives a steered model."""
    return entry["class_type"].startswith(OWN) and MODEL in _gives(entry)


def _title(node: str, entry: Mapping[str, Any]) -> str:
    from nodes import NODE_DISPLAY_NAME_MAPPINGS

    return f"{NODE_DISPLAY_NAME_MAPPINGS.get(entry['class_type'], entry['class_type'])} (node {node})"


def _users_behind(node: str, kind: str, graph: Mapping[str, Any], executor: Any) -> Iterator[str]:
    """The nodes that a node's model or CLIP comes to, through those that hand it on, and that make something of it."""
    from nodes import NODE_CLASS_MAPPINGS

    handed_on = HANDED_ON if kind == MODEL else {kind}
    given = [str(output) for output in NODE_CLASS_MAPPINGS[graph[node]["class_type"]].RETURN_TYPES]
    waiting, seen = [(node, index) for index, output in enumerate(given) if output == kind], set()
    while waiting:
        link = waiting.pop()
        for other, entry in graph.items():
            if (link, other) in seen or list(link) not in entry["inputs"].values():
                continue
            seen.add((link, other))
            types = [str(kind) for kind in NODE_CLASS_MAPPINGS[entry["class_type"]].RETURN_TYPES]
            own = cached_output(link[0], executor, link[1])
            chosen = {index: cached_output(other, executor, index) for index, any_ in enumerate(types) if any_ in ANY}
            if any(one is own or type(one) is type(own) for one in chosen.values()):  # a switch, or a reroute
                waiting += [(other, index) for index, one in chosen.items() if one is own]
                continue
            waiting += [(other, index) for index, kind in enumerate(types) if kind in handed_on]
            if set(types) - handed_on - PLAIN and not entry["class_type"].startswith(OWN):
                yield other


def _steering_of(node: str, executor: Any = None) -> Steering | None:
    """What one of our nodes put on its model in the running prompt, also if core had its result in the cache."""
    model = cached_output(node, executor)
    if isinstance(model, ModelPatcher):
        return next(reversed(steerings_of(model)), None)
    return STEERINGS.get(node)


def _encoder_steering_of(node: str, executor: Any = None) -> EncoderSteering | None:
    """What one of our nodes put on its CLIP in the running prompt, also if core had its result in the cache."""
    model, clip = (cached_output(node, executor, slot) for slot in range(2))
    if model is None and clip is None:  # core has kept nothing
        return ENCODER_STEERINGS.get(node)
    return next((found for found in encoder_steerings_of(clip) if found.node_id == node), None)


def runs_of_latent(model: ModelPatcher) -> list[tuple[Steering | EncoderSteering, list[NodeRuns]]]:
    """For the running node: the runs of each steering on `model` that made what is connected to its input `samples`.

    The steering of a node inside the text encoder comes before that of the model: prompts are read first.

    Raises:
        NotSteeredError: a steering on the model, or one in the latent's graph, steered none of the runs that made it.
    """
    context = get_executing_context()
    dynprompt = get_progress_state().dynprompt
    if context is None or not dynprompt.has_node(context.node_id):
        return [(steering, steering.log.of_results()) for steering in steerings_of(model)]
    nodes = ancestors(dynprompt, dynprompt.get_node(context.node_id)["inputs"].get("samples"))
    results = {result_key(context.prompt_id, node) for node in nodes}
    own = [node for node in nodes if _steers(dynprompt.get_node(node))]
    inside = list(filter(None, map(_encoder_steering_of, own)))
    applied: list[Any] = [*steerings_of(model), *map(_steering_of, own)]
    if inside:  # the nodes nearest to the latent come first in `own`
        applied = [of(node) for node in reversed(own) for of in (_encoder_steering_of, _steering_of)] + applied
    steerings: dict[Any, None] = dict.fromkeys(filter(None, applied))
    found = [(steering, steering.log.of_results(results)) for steering in steerings]
    lost = [steering for steering, runs in found if not runs and not steering.off]
    if lost:
        made = [steering.node_id for steering in lost if dynprompt.has_node(steering.node_id)]
        names = ", ".join(_title(node, dynprompt.get_node(node)) for node in made) or "its model"
        raise NotSteeredError(
            f"This latent was made without the steering of {names}: no run that made it was steered. Its sampler runs "
            "the model in its own way, or samples another model. Steer the model that is sampled, with a sampler of "
            "ComfyUI. Of a steered text encoder, wire the output clip to the nodes that read the prompts."
        )
    return found


def ancestors(dynprompt: Any, link: Any) -> Collection[str]:
    """The nodes that a link comes from, near and far."""
    found: dict[str, None] = {}
    waiting = [link]
    while waiting:
        link = waiting.pop()
        if isinstance(link, list) and len(link) == 2 and dynprompt.has_node(link[0]) and link[0] not in found:
            found[link[0]] = None
            waiting += dynprompt.get_node(link[0])["inputs"].values()
    return found
