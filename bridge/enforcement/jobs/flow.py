"""What each value of a running job is made of: noted when a node ends, looked up when another takes the value."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import comfy.utils
import folder_paths
import torch

from ....guardrail.content import NOTHING, Content, SamplerRun, union
from ....guardrail.plain_text import shown
from .admission import is_link
from .node_facts import NodeFacts
from .staging import place_of
from .values import (
    OTHER_TYPES,
    carries_pictures,
    is_blank,
    is_picture,
    leaves,
    many_numbers,
    same_object,
    spells_picture,
)

LONGEST_NAME = 1000
MOST_ORIGINS = 65_536  # cached results; one whose origin is forgotten counts as the client's


@dataclass
class Taken:
    """The inputs of a node: name -> what they are made of, and their values."""

    contents: dict[str, Content] = field(default_factory=dict)
    values: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    @property
    def content(self) -> Content:
        """What all inputs together are made of."""
        return union(self.contents.values())

    def shown(self) -> Content:
        """What the inputs are made of that a node could show: pictures, and texts made from pictures."""
        return union(
            content
            for name, content in self.contents.items()
            if name not in self.values
            or any(carries_pictures(value) or isinstance(value, str) for value in self.values[name])
            or many_numbers(list(self.values[name]))
        )

    def latents(self) -> Content:
        """What the inputs are made of that a sampler run can begin with: latents and pictures."""
        return union(
            content
            for name, content in self.contents.items()
            if name not in self.values or any(is_picture(value) for value in self.values[name])
        )


class Origins:
    """What the results that core has cached are made of, by core's own keys."""

    def __init__(self) -> None:
        self._known: OrderedDict[Any, tuple[Content, ...]] = OrderedDict()

    def clear(self) -> None:
        """Forget everything, as core's cache was."""
        self._known.clear()

    def of(self, executor: Any, node_id: str) -> tuple[Content, ...]:
        """What the cached results of a node are made of, by slot; empty if that is not known."""
        return self._known.get(_key_of(executor, node_id), ())

    def remember(self, executor: Any, node_id: str, contents: tuple[Content, ...]) -> None:
        """Keep it for later jobs."""
        if (key := _key_of(executor, node_id)) is not None:
            self._known[key] = contents
            self._known.move_to_end(key)
        while len(self._known) > MOST_ORIGINS:
            self._known.popitem(last=False)


def _key_of(executor: Any, node_id: str) -> Any:
    """Core's key of a node's result in its cache; None if it keeps none."""
    cache = executor.caches.outputs
    cache = cache._get_cache_for(node_id) if hasattr(cache, "_get_cache_for") else cache
    keys = getattr(cache, "cache_key_set", None)
    return keys.get_data_key(node_id) if keys is not None else None


class Flow:
    """The values of one job. runs: of each node that runs, the guarded runs in it, with what they returned."""

    def __init__(self, executor: Any, origins: Origins) -> None:
        self.runs: dict[str, list[tuple[SamplerRun, torch.Tensor]]] = {}
        self.reused: set[SamplerRun] = set()
        self._executor = executor
        self._origins = origins
        self._dynprompt: Any = None
        self._taken: dict[str, Taken] = {}
        self._slots: dict[str, tuple[Content, ...]] = {}
        self._expanded: dict[str, list[Sequence[Any]]] = {}

    def take(self, dynprompt: Any, node_id: str, facts: NodeFacts, values: Mapping[str, Sequence[Any]]) -> Taken:
        """Look up what the inputs of a node are made of, just before it runs."""
        self._dynprompt = dynprompt
        given = dynprompt.get_node(node_id)["inputs"]
        contents = {name: self._of_input(node_id, given.get(name), values[name]) for name in values}
        if (facts.is_output or set(facts.gives) - OTHER_TYPES) and any(input_file(value) for value in given.values()):
            contents["a file"] = Content(client=frozenset({self.title(node_id)}))
        self._taken[node_id] = taken = Taken(contents, values)
        self.runs.pop(node_id, None)
        return taken

    def taken(self, node_id: str) -> Taken:
        """The inputs of a node that runs or has run."""
        return self._taken.get(node_id, Taken())

    def give(self, node_id: str, facts: NodeFacts, output: Sequence[Any], expanded: bool) -> Content:
        """Note what a node's results are made of; returns what those together are that show something."""
        if expanded:
            self._expanded[node_id] = [results for _, results in output]
            return NOTHING
        slots = [self._of_result(node_id, facts, slot, values) for slot, values in enumerate(output)]
        if facts.is_core and slots and slots[0].runs & {run for run, _ in self.runs.get(node_id, ())}:
            slots = [slots[0] if content.runs else content for content in slots]  # the same run's denoised latents
        self._slots[node_id] = tuple(slots)
        self._origins.remember(self._executor, node_id, tuple(slots))
        kinds = [*facts.gives, *[""] * len(slots)]
        return union(
            content
            for content, values, kind in zip(slots, output, kinds, strict=False)
            if any(is_picture(value, kind) for value in values)
        )

    def of(self, node_id: str, slot: int) -> Content:
        """What one result of a node is made of."""
        if node_id in self._expanded:
            return union(
                self._of_raw(node_id, results[slot]) for results in self._expanded[node_id] if slot < len(results)
            )
        if node_id not in self._slots:
            self._slots[node_id] = known = self._origins.of(self._executor, node_id)
            self.reused |= union(known).runs
        slots = self._slots[node_id]
        return slots[slot] if slot < len(slots) else Content(client=frozenset({self.title(node_id)}))

    def remember_expanded(self) -> None:
        """At the end of a job: what nodes that became graphs have given is known now."""
        for node_id, results in self._expanded.items():
            width = max(map(len, results), default=0)
            self._origins.remember(self._executor, node_id, tuple(self.of(node_id, slot) for slot in range(width)))

    def _of_input(self, node_id: str, given: Any, values: Sequence[Any]) -> Content:
        if is_link(given):
            return self.of(given[0], int(given[1]))
        parent = self._dynprompt.get_parent_node_id(node_id)
        return union(self._of_raw(parent, value) for value in values) if parent else NOTHING

    def _of_raw(self, parent: str, value: Any) -> Content:
        """What a value is made of that a node has put into the graph that it became."""
        if is_link(value):
            return self.of(value[0], int(value[1]))
        taken = self.taken(parent)
        known = [content for name, content in taken.contents.items() if same_object(value, taken.values.get(name, ()))]
        return union(known) if known else taken.content if is_picture(value) else NOTHING

    def _of_result(self, node_id: str, facts: NodeFacts, slot: int, values: Sequence[Any]) -> Content:
        kind = facts.gives[slot] if slot < len(facts.gives) else ""
        if all(isinstance(value, int | float) for value in values) and many_numbers(list(values)):
            return self.taken(node_id).content  # one by one they are nothing
        return union(_noted(self._of_value(node_id, facts, kind, value), value) for value in values)

    def _of_value(self, node_id: str, facts: NodeFacts, kind: str, value: Any) -> Content:
        if value is None or isinstance(value, bool | int | float):
            return NOTHING
        taken, runs = self.taken(node_id), self.runs.get(node_id, [])
        same = [content for name, content in taken.contents.items() if same_object(value, taken.values.get(name, ()))]
        if same:
            return union(same)
        if made := [run for run, samples in runs if _holds(value, samples)]:
            return Content(frozenset(made))
        if is_blank(value):
            return Content(blank=True)
        inputs = taken.content
        if runs:
            return Content(inputs.runs | {run for run, _ in runs}, inputs.client, numbers=inputs.numbers)
        if not (inputs.runs or inputs.client) and is_picture(value, kind):  # the node has brought it
            return Content(client=frozenset({self.title(node_id)}))
        return inputs

    def place(self, node_id: str) -> str:
        """The name of the private folders that a node writes into."""
        return place_of(self._dynprompt, node_id)

    def title(self, node_id: str) -> str:
        """A node as records name it: `id (class)`."""
        node = self._dynprompt.get_node(node_id)
        return shown(f"{node_id} ({node['class_type']})")


def _noted(content: Content, value: Any) -> Content:
    """What a result is made of; a text of a picture's numbers stays one, whatever other nodes make of it."""
    return replace(content, numbers=True) if content and spells_picture(value) else content


def input_file(value: Any) -> Path | None:
    """The file that a text among a node's inputs names: one that clients have put here, or that was made here."""
    if not (isinstance(value, str) and 0 < len(value) < LONGEST_NAME and "." in value and "\x00" not in value):
        return None
    name, _ = folder_paths.annotated_filepath(value)
    if not name.strip() or not folder_paths.exists_annotated_filepath(value):
        return None
    path = Path(folder_paths.get_annotated_filepath(value))
    return path if path.is_file() else None


def _holds(value: Any, samples: torch.Tensor) -> bool:
    """Whether a value is, or holds, what a sampler run returned, in the value's own precision."""
    for leaf in leaves(value):
        tensor = comfy.utils.pack_latents(leaf.unbind())[0] if getattr(leaf, "is_nested", False) else leaf
        comparable = isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and tensor.shape == samples.shape
        if comparable and torch.equal(tensor, samples.to(tensor)):
            return True
    return False
