"""Builds API-format prompts in a few readable lines.

graph = PromptGraph()
model = graph.add("UNETLoader", unet_name="wan.safetensors", weight_dtype="default")
graph.add("KSampler", model=model[0], ...)
server.run(graph.prompt)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class NodeRef:
    """A node of a graph; ``ref[i]`` links to its i-th output."""

    id: str

    def __getitem__(self, output: int) -> list[str | int]:
        return [self.id, output]


@dataclass
class PromptGraph:
    """An API-format prompt in the making."""

    prompt: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, class_type: str, inputs: dict[str, Any] | None = None, **more_inputs: Any) -> NodeRef:
        """Add a node; ``inputs`` takes names that are no Python identifiers, such as ``gate.threshold``."""
        node_id = str(len(self.prompt) + 1)
        self.prompt[node_id] = {"class_type": class_type, "inputs": {**(inputs or {}), **more_inputs}}
        return NodeRef(node_id)
