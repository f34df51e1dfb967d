"""A short hash of everything that nodes have put on a model for a run: LoRAs of any kind, and patches of its blocks.

Weights may be patched (LoRA loaders), patched for some prompts (hooks), added in the forward pass (bypass LoRAs, which
are injections), or changed by functions in the blocks (hypernetworks, attention patches).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher

HASHED = 64  # values of a tensor
DEEPEST = 12
PATCHES = ("patches", "patches_replace")


def patches_digest(patcher: ModelPatcher) -> str:
    """The hash of the patches on a model; empty without one. Wrappers, such as those that steer, are no patches."""
    options = patcher.model_options.get("transformer_options", {})
    parts = [patcher.patches, *getattr(patcher, "hook_patches", {}).values(), getattr(patcher, "injections", {})]
    parts += [options.get(name) for name in PATCHES]
    if not any(parts):
        return ""
    sha, walk = hashlib.sha256(), _Walk(patcher.model)
    for part in walk.plain([part for part in parts if part]):
        sha.update(part)
    return sha.hexdigest()[:16]


class _Walk:
    """Goes through nested patches once, past the modules of the model that they are on."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._seen: set[int] = {id(module) for module in model.modules()}

    def plain(self, value: Any, depth: int = DEEPEST) -> Iterator[bytes]:
        """Names, numbers and a few values of each tensor, as bytes that are the same in each process."""
        if isinstance(value, str | int | float | bool | None):
            yield repr(value).encode()
        elif isinstance(value, torch.Tensor):
            yield repr((tuple(value.shape), value.detach().flatten()[:HASHED].float().cpu().tolist())).encode()
        elif id(value) not in self._seen and depth:
            self._seen.add(id(value))
            if isinstance(value, Mapping):
                for key in sorted(value, key=str):
                    yield str(key).encode()
                    yield from self.plain(value[key], depth - 1)
            elif isinstance(value, list | tuple):
                for item in value:
                    yield from self.plain(item, depth - 1)
            else:
                yield (getattr(value, "__qualname__", "") or type(value).__qualname__).encode()
                yield from self.plain(_parts_of(value), depth - 1)


def _parts_of(value: Any) -> Any:
    """What an object, a module or a function keeps."""
    if isinstance(value, torch.nn.Module):
        return value.state_dict()
    if callable(value) and hasattr(value, "__code__"):
        bound = [value.__self__] if hasattr(value, "__self__") else []
        return [*bound, *(cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell))]
    return getattr(value, "__dict__", {})


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # a variable that has no value yet
        return False
