"""The prompt that core is executing, and what a node's result in it depends on."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Any

Ended = Callable[[Any, str], None]

_executor: Any = None


def watch_prompts(ended: Ended) -> None:
    """Know of every prompt that core executes from now on. ended: called with executor and prompt id after each."""
    import execution

    original = execution.PromptExecutor.execute

    @functools.wraps(original)
    def execute(executor: Any, prompt: dict[str, Any], prompt_id: str, *args: Any, **kwargs: Any) -> Any:
        global _executor
        _executor = executor
        try:
            result = original(executor, prompt, prompt_id, *args, **kwargs)
        finally:
            _executor = None
        ended(executor, prompt_id)
        return result

    execution.PromptExecutor.execute = execute


def real_id(node_id: str) -> str:
    """The node of the queued graph that a node is part of: core puts the ids of a node's expansion behind its own."""
    return node_id.split(".")[0]


def result_key(prompt_id: str, node_id: str, executor: Any = None) -> Hashable:
    """The same for two executions of a node if and only if core would take one's result for the other's.

    It is core's own cache key: of the node's class and all inputs, near and far. Where core keeps no cache, each prompt
    has its own. executor: of the prompt, if it has ended.
    """
    node = real_id(node_id)
    executor = executor or _executor
    keys = None if executor is None else getattr(executor.caches.outputs, "cache_key_set", None)
    key: Hashable = None if keys is None else keys.get_data_key(node)
    return (prompt_id, node) if key is None else key


def cached_output(node_id: str, executor: Any = None, slot: int = 0) -> Any:
    """An output of a node of the running (or the given executor's last) prompt; None if core has not kept it."""
    executor = executor or _executor
    entry = None if executor is None else executor.caches.outputs.get_local(node_id)
    outputs = entry.outputs if entry is not None and entry.outputs else ()
    return outputs[slot][0] if len(outputs) > slot and outputs[slot] else None
