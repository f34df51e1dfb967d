"""Hashes of what decides a model's states, so that a fit can be found again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

PROBE = "A wooden boat lies on a calm lake in the morning."
_SAMPLED_WEIGHTS, _SAMPLED_VALUES = 16, 64
_HASHED_WHOLE = 2**24  # values; of larger tensors about _SAMPLED are hashed
_SAMPLED = 4096


def fingerprint(patcher: ModelPatcher) -> str:
    """The `weights_fingerprint` of a diffusion model."""
    return weights_fingerprint(patcher, patcher.model.diffusion_model)


def weights_fingerprint(patcher: Any, part: torch.nn.Module) -> str:
    """A short hash of the weights of a part of a patcher's model before any LoRA.

    Hashes names and shapes, and the first values of tensors spread over the part: another precision, quantisation or
    merge gives another fingerprint.
    """
    prefix = next((name for name, module in patcher.model.named_modules() if module is part), "")
    weights = list(part.named_parameters())
    sha = hashlib.sha256(repr([(name, tuple(weight.shape)) for name, weight in weights]).encode())
    for name, weight in weights[:: max(1, len(weights) // _SAMPLED_WEIGHTS)]:
        saved = patcher.backup.get(f"{prefix}.{name}".lstrip("."))  # what the patcher has patched in place
        original = weight if saved is None else saved.weight
        values = original.detach().flatten()[:_SAMPLED_VALUES].to("cpu", torch.float32)
        sha.update(values.numpy().tobytes())
    return sha.hexdigest()[:16]


def patcher_key(patcher: Any) -> dict[str, str]:
    """Weights of a patcher's model, and the patches (LoRA) on it."""
    return {"weights": weights_fingerprint(patcher, patcher.model), "patches": digest(patcher.patches)}


def clip_key(clip: Any) -> dict[str, Any]:
    """What decides a CLIP's states: class, weights, patches, layer and tokenizer options.

    An object that only behaves like a CLIP is identified by its output for a fixed harmless sentence.
    """
    if not hasattr(clip, "patcher"):
        return {
            "class": type(clip).__qualname__,
            "probe": digest(clip.encode_from_tokens_scheduled(clip.tokenize(PROBE))),
        }
    return {
        "class": type(clip.cond_stage_model).__qualname__,
        "layer": clip.layer_idx,
        "options": digest(clip.tokenizer_options),
        "hooks": digest(clip.apply_hooks_to_conds),
        **patcher_key(clip.patcher),
    }


def digest(value: Any) -> str:
    """A short hash of nested plain data and tensors; of other objects only the class and the attribute `weights`."""
    sha = hashlib.sha256()
    _update(sha, value)
    return sha.hexdigest()[:16]


def _update(sha: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        sha.update(f"{tuple(value.shape)}{value.dtype}".encode())
        flat = value.detach().flatten()
        if flat.numel() > _HASHED_WHOLE:
            flat = flat[:: flat.numel() // _SAMPLED]
        sha.update(flat.to("cpu", torch.float32).numpy().tobytes())
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            sha.update(str(key).encode())
            _update(sha, value[key])
    elif isinstance(value, (list, tuple)):
        sha.update(str(len(value)).encode())
        for item in value:
            _update(sha, item)
    elif value is None or isinstance(value, (str, int, float, bool)):
        sha.update(repr(value).encode())
    else:
        sha.update(type(value).__qualname__.encode())
        _update(sha, getattr(value, "weights", None))
