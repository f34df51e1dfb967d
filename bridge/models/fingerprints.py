"""Hashes of what decides an encoder's states, so that a fit can be found again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

_SAMPLED_WEIGHTS = 16


_SAMPLED_VALUES = 64


def fingerprint(patcher: ModelPatcher) -> str:
    """A short hash of a diffusion model's weights before any LoRA; see `weights_fingerprint`."""
    return weights_fingerprint(patcher.model.diffusion_model, patcher.backup, "diffusion_model.")


def weights_fingerprint(model: torch.nn.Module, backup: Mapping[str, Any], prefix: str = "") -> str:
    """A short hash of a model's weights before any LoRA: shapes, and a few values of tensors spread over the model.

    Another precision, quantisation or merge gives another fingerprint. backup: a patcher's, of weights that it has
    patched in place, under `prefix` and their names.
    """
    weights = list(model.named_parameters())
    digest = hashlib.sha256(repr([(name, tuple(weight.shape)) for name, weight in weights]).encode())
    stride = max(1, len(weights) // _SAMPLED_WEIGHTS)
    for name, weight in weights[::stride]:
        saved = backup.get(f"{prefix}{name}")
        original = weight if saved is None else saved.weight
        values = original.detach().flatten()[:_SAMPLED_VALUES].to("cpu", torch.float32)
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()[:16]


HASHED_WHOLE = 2**24  # values; of larger tensors some are hashed


SAMPLED = 4096


PROBE = "A wooden boat lies on a calm lake in the morning."


def patcher_key(patcher: Any) -> dict[str, str]:
    """Weights of a patcher's model, and the patches (LoRA) on it."""
    return {"weights": weights_fingerprint(patcher.model, patcher.backup), "patches": digest(patcher.patches)}


def clip_key(clip: Any) -> dict[str, Any]:
    """What decides a CLIP's states: class, weights, patches, layer and tokenizer options.

    An object that only behaves like a CLIP is told by what it gives for a fixed harmless sentence.
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
    """A short hash of nested plain data and tensors; of other objects only the class and the `weights` count."""
    sha = hashlib.sha256()
    _update(sha, value)
    return sha.hexdigest()[:16]


def _update(sha: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        sha.update(f"{tuple(value.shape)}{value.dtype}".encode())
        flat = value.detach().flatten()
        if flat.numel() > HASHED_WHOLE:
            flat = flat[:: flat.numel() // SAMPLED]
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
