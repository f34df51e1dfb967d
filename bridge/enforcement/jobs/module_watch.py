"""The modules of loaded models, as they were when the model was made: what one job changes, no other job meets."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import comfy.model_management
import torch

from ..choke_points import Wrap

Signature = dict[str, tuple[int, type, bool]]


class ModuleWatch:
    """Remembers each diffusion model's modules, and their classes' `forward`."""

    def __init__(self) -> None:
        self._models: WeakKeyDictionary[torch.nn.Module, Signature] = WeakKeyDictionary()
        self._forwards: dict[type, Any] = {}

    def wraps(self) -> dict[str, Wrap]:
        """Choke point -> what is put around its function."""
        return {"model": self._around_init}

    def _around_init(self, original: Callable[..., None]) -> Callable[..., None]:
        def init(model: Any, *args: Any, **kwargs: Any) -> None:
            original(model, *args, **kwargs)
            if hasattr(model, "diffusion_model"):
                self._models[model] = _signature(model)
                for module in model.diffusion_model.modules():
                    self._forwards.setdefault(type(module), type(module).forward)

        return init

    def heal(self) -> list[str]:
        """After a job: undo what it left on shared models; sentences about models that must be loaded anew."""
        for kind, forward in self._forwards.items():
            if kind.forward is not forward:
                logging.warning("Safety Steering: a job changed %s.forward; it is put back.", kind.__name__)
                kind.forward = forward
        if not (changed := self._changed()):
            return []
        for model in changed:  # unloading takes back what core knows of
            for loaded in [item for item in comfy.model_management.current_loaded_models if _is_of(item, model)]:
                loaded.model_unload()
                comfy.model_management.current_loaded_models.remove(loaded)
        lost = self._changed()
        for model in lost:
            del self._models[model]
        return [f"A job changed the modules of {type(model).__name__}, so it is loaded anew." for model in lost]

    def _changed(self) -> list[Any]:
        return [model for model, signature in self._models.items() if _signature(model) != signature]


def _signature(model: Any) -> Signature:
    named = model.diffusion_model.named_modules(remove_duplicate=False)
    return {name: (id(module), type(module), "forward" in vars(module)) for name, module in named}


def _is_of(loaded: Any, model: Any) -> bool:
    return loaded.model is not None and loaded.model.model is model
