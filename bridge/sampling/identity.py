"""What has to be the same when a capture goes on: how its prompts are sampled, as plain JSON values.

Samplers and guiders are objects of core or of any pack, so they are written down by class and attributes: numbers and
texts as they are, tensors by their hash, functions and other objects by name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch

from .sampling import OF_THE_GUIDER, Sampling

# of a guider: what each run replaces, or leaves behind
_OF_A_RUN = ("model_patcher", "model_options", "inner_model", "conds", "loaded_models", "original_conds")
_PLAIN = (str, int, float, bool, type(None))


def identity_of(sampling: Sampling) -> dict[str, Any]:
    """The identity of a way of sampling. What a widget no longer decides is left out."""
    names = ["seed"]
    names += [] if sampling.guider is not None else ["negative", "cfg"]
    names += [] if sampling.sampler is not None else ["sampler_name"]
    names += [] if sampling.sigmas is not None else ["steps", "scheduler"]
    found = {name: getattr(sampling, name) for name in names}
    latent = sampling.latent["samples"]
    found["latent"] = described([part[:1] for part in (latent.unbind() if latent.is_nested else [latent])])
    for name, value in (("noise_mask", sampling.latent.get("noise_mask")), ("extras", sampling.extras or None)):
        found |= {} if value is None else {name: described(value)}
    for name in ("sampler", "sigmas"):
        found |= {} if getattr(sampling, name) is None else {name: described(getattr(sampling, name))}
    return found if sampling.guider is None else found | {"guider": _guider(sampling.guider)}


def _guider(guider: Any) -> dict[str, Any]:
    own = {name: value for name, value in vars(guider).items() if name not in _OF_A_RUN}
    others = {role: conds for role, conds in guider.original_conds.items() if role != "positive"}
    return {"class": _name(type(guider)), **described(own, deep=False), "conditioning": described(others)}


def described(value: Any, deep: bool = True) -> Any:
    """A value as plain JSON; of an object that is none its class, and its plain attributes if `deep`."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, torch.Tensor):
        return f"{list(value.shape)} {_hash(value)}"
    if isinstance(value, Mapping):
        kept = {str(key): entry for key, entry in value.items() if key not in OF_THE_GUIDER[1:]}
        return {key: described(entry, deep) for key, entry in sorted(kept.items())}
    if isinstance(value, (list, tuple)):
        return [described(entry, deep) for entry in value]
    if callable(value) and hasattr(value, "__qualname__"):
        return _name(value)
    own = vars(value) if deep and hasattr(value, "__dict__") else {}
    return {"class": _name(type(value)), **{name: described(entry, deep=False) for name, entry in sorted(own.items())}}


def _name(thing: Any) -> str:
    return f"{thing.__module__}.{thing.__qualname__}"


def _hash(tensor: torch.Tensor) -> str:
    data = tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy()
    return hashlib.sha256(str(tensor.dtype).encode() + data.tobytes()).hexdigest()[:16]
