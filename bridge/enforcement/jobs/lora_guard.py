"""LoRAs on a guarded server with `allow.loras`: guards the functions that load and apply them, whatever a node is.

Tensors of permitted LoRA files are known by identity; a LoRA of which no tensor is known came from somewhere else.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import folder_paths
import torch

from ....guardrail.errors import Refused
from ....guardrail.plain_text import shown
from ....guardrail.policy import Policy
from ...folders import sha256_of
from ..choke_points import Wrap
from .job import Job

NOT_LISTED = "it is not one of the LoRAs that this host permits (allow.loras). Choose another."
UNKNOWN = "These LoRA weights are not from a LoRA file that this host permits (allow.loras). Load one of those."
WHOLE_MODEL = "A whole model as a LoRA is not permitted here (allow.loras). Load a LoRA that the host offers."


class LoraGuard:
    """Guards LoRAs for the job that `current_job` names."""

    def __init__(self, current_job: Callable[[], Job | None]) -> None:
        self._current_job = current_job
        self._known: dict[int, weakref.ref[torch.Tensor]] = {}

    def wraps(self) -> dict[str, Wrap]:
        """Choke point -> what is put around its function."""
        return {
            "load file": self._around_load_file,
            "apply lora": self._around_load_lora,
            "model as lora": self._around_model_as_lora,
        }

    def _around_load_file(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def load_torch_file(ckpt: str, *args: Any, **kwargs: Any) -> Any:
            policy = self._listing()
            is_lora = policy is not None and _is_in_loras(Path(ckpt))
            if policy is not None and is_lora and not policy.allows_lora(sha256_of(Path(ckpt))):
                self._refuse(f"'{shown(Path(ckpt).name)}': {NOT_LISTED}")
            loaded = original(ckpt, *args, **kwargs)
            if is_lora:
                self._learn(loaded[0] if isinstance(loaded, tuple) else loaded)
            return loaded

        return load_torch_file

    def _around_load_lora(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def load_lora(lora: Any, *args: Any, **kwargs: Any) -> Any:
            tensors = [value for value in lora.values() if isinstance(value, torch.Tensor)]
            if self._listing() is not None and tensors and not any(map(self._knows, tensors)):
                self._refuse(UNKNOWN)
            return original(lora, *args, **kwargs)

        return load_lora

    def _around_model_as_lora(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def create_hook_model_as_lora(*args: Any, **kwargs: Any) -> Any:
            if self._listing() is not None:
                self._refuse(WHOLE_MODEL)
            return original(*args, **kwargs)

        return create_hook_model_as_lora

    def _listing(self) -> Policy | None:
        """The running job's policy, if it lists the LoRAs."""
        job = self._current_job()
        return job.policy if job is not None and job.policy.settings.allow.loras is not None else None

    def _refuse(self, sentence: str) -> None:
        job = self._current_job()
        assert job is not None
        with job.refusing():
            raise Refused(sentence, job.node_id)

    def _learn(self, tensors: Mapping[str, Any]) -> None:
        self._known = {key: known for key, known in self._known.items() if known() is not None}
        for tensor in tensors.values():
            if isinstance(tensor, torch.Tensor):
                self._known[id(tensor)] = weakref.ref(tensor)

    def _knows(self, tensor: torch.Tensor) -> bool:
        known = self._known.get(id(tensor))
        return known is not None and known() is tensor


def _is_in_loras(path: Path) -> bool:
    folders = [Path(folder).resolve() for folder in folder_paths.get_folder_paths("loras")]
    return any(path.resolve().is_relative_to(folder) for folder in folders)
