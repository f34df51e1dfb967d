"""Models that other nodes have changed: the class and the block lists that a diffusion model has of its own.

A node may put a class of its own in a model's place (`diffusion_model.__class__`), wrap the model, or replace a list of
blocks. All patchers of a model share it, so such a change can also be left over from an earlier run: ComfyUI takes its
object patches off when the next patcher is loaded, not when a run ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from .families import FAMILIES

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

NESTED = 4  # wrappers in one another
PREFIX = "diffusion_model."
CLASS = "__class__"
_KNOWN = frozenset(family.class_name for family in FAMILIES)


def is_core(kind: type) -> bool:
    """Whether a class is ComfyUI's own."""
    return kind.__module__.startswith("comfy.")


def core_class(kind: type) -> type:
    """The class of ComfyUI that `kind` is or is derived from; `kind` itself if there is none."""
    return next((base for base in kind.__mro__ if is_core(base)), kind)


def unwrap(module: nn.Module) -> nn.Module:
    """The model behind torch.compile's wrapper or those of other nodes, or the module itself.

    A wrapper of another node is a module of a class that is neither ComfyUI's nor torch's. It holds one model that is
    ComfyUI's, or another wrapper, beside parts of its own; some keep it from torch, in a list or as a bound method.
    """
    return _model_in(module, NESTED) or module


def _model_in(module: nn.Module, depth: int) -> nn.Module | None:
    """The model of ComfyUI that a module is or holds; None if it holds none, or several."""
    inner = getattr(module, "_orig_mod", None)
    if isinstance(inner, nn.Module):
        return (_model_in(inner, depth - 1) or inner) if depth else None
    if not _is_foreign(module):
        return module if is_core(core_class(type(module))) else None
    if not depth:
        return None
    held = list(module.children())
    alone = len(held) == 1
    held += [one for value in vars(module).values() for one in _kept_from_torch(value)]
    found = {id(model): model for one in held if (model := _model_in(one, depth - 1)) is not None}
    # of several parts, such as layers of comfy.ops, the model is the one whose class the map knows
    models = [model for model in found.values() if alone or core_class(type(model)).__name__ in _KNOWN]
    return models[0] if len(models) == 1 else None


def _kept_from_torch(value: Any) -> list[nn.Module]:
    """The modules in an attribute that torch does not take for a part of its module."""
    values = value if isinstance(value, list | tuple) else [getattr(value, "__self__", value)]
    return [one for one in values if isinstance(one, nn.Module)]


def patched(patcher: ModelPatcher) -> dict[str, Any]:
    """What this patcher puts on the diffusion model: attribute path -> object."""
    return _of_model(patcher.object_patches)


def saved(patcher: ModelPatcher) -> dict[str, Any]:
    """What the diffusion model has of its own where a patcher has put something else: attribute path -> object."""
    return _of_model(patcher.object_patches_backup)


def _of_model(patches: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(PREFIX): value for name, value in patches.items() if name.startswith(PREFIX)}


def own_list(blocks: nn.Module) -> nn.Module | None:
    """A model's list of blocks, also inside of what another node has put in its place; None if it is not found there.

    What another node puts there is a container that is neither torch's nor ComfyUI's, or a list of one such module.
    """
    children = list(blocks.children())
    container, alone = _is_foreign(blocks), len(children) == 1 and _is_foreign(children[0])
    if not container and not alone:
        return blocks
    lists = (module for module in blocks.modules() if isinstance(module, nn.ModuleList) and module is not blocks)
    return next((one for one in lists if len(one) and not any(map(_is_foreign, one))), None)


def _is_foreign(module: nn.Module) -> bool:
    return not (is_core(core_class(type(module))) or type(module).__module__.startswith("torch."))


def swap_warning(swapped: str, family: str) -> str:
    """A sentence if something was put in place of a model's own class or blocks, else an empty string."""
    if not swapped:
        return ""
    return f"Another node has put {swapped} in place of this model's own; it is steered as {family}."


def stale_warning(patcher: ModelPatcher) -> str:
    """A sentence if the shared model still carries what an earlier run's patcher put on it, else an empty string."""
    left = sorted(set(saved(patcher)) - set(patched(patcher)))
    if not left:
        return ""
    return (
        f"An earlier run has left its own {', '.join(left[:3])} on this model. "
        "ComfyUI takes it off before this model runs; here it is read as it was before."
    )
