"""Models that other nodes have changed: the class and the block lists that a diffusion model has of its own.

A node may put a class of its own in a model's place (`diffusion_model.__class__`), wrap the model, or replace a list of
blocks. All patchers of a model share it, so such a change can also be left over from an earlier run: ComfyUI takes its
object patches off when the next patcher is loaded, not when a run ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

PREFIX = "diffusion_model."
CLASS = "__class__"


def is_core(kind: type) -> bool:
    """Whether a class is ComfyUI's own."""
    return kind.__module__.startswith("comfy.")


def core_class(kind: type) -> type:
    """The class of ComfyUI that `kind` is or is derived from; `kind` itself if there is none."""
    return next((base for base in kind.__mro__ if is_core(base)), kind)


def unwrap(module: nn.Module) -> nn.Module:
    """The module behind torch.compile's wrapper or another node's, or the module itself.

    A wrapper of another node is a module of a class that is not ComfyUI's, with one child, which is.
    """
    inner = getattr(module, "_orig_mod", None)
    if inner is None and not is_core(core_class(type(module))):
        children = list(module.children())
        inner = children[0] if len(children) == 1 and is_core(core_class(type(children[0]))) else None
    return unwrap(inner) if isinstance(inner, nn.Module) else module


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
