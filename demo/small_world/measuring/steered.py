"""Apply a setting to a model or to the text encoder, and compute its effect on text states."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..models.encoder_layer import INNER, encode_edited
from ..models.text import encode_text
from ..runtime import use_comfyui
from .sampling import Encode
from .settings import WorldSetting, intervention_of, prompt_gate


def steered(model: Any, setting: WorldSetting, vectors: Path) -> Any:
    """The model under a setting: steered by its vector, patched by its baseline, or itself."""
    if setting.baseline:
        return _with_baseline(model, setting, vectors)
    if not setting.vector or in_encoder(setting):
        return model
    use_comfyui()
    from safety_steering_pack.bridge.steering.apply import apply_steering
    from safety_steering_pack.bridge.steering.settings import SteeringSettings

    how = intervention_of(setting)
    settings = SteeringSettings(setting.strength, setting.hook_points, how, setting.window, "both")
    return apply_steering(model, _vector(setting, vectors), settings)


def in_encoder(setting: WorldSetting) -> bool:
    """Whether a setting steers inside the text encoder instead of the model."""
    return setting.hook_points[:1] == (INNER,)


def encoder(setting: WorldSetting, vectors: Path) -> Encode:
    """The text encoder under a setting."""
    if not in_encoder(setting):
        return encode_text
    use_comfyui()
    from safety_steering_pack.safety_steering.steering.interventions import intervene, stack_targets

    vector, how = _vector(setting, vectors), intervention_of(setting)
    targets = stack_targets(vector.at(INNER), vector.mix, 0)

    def edit(states: Any, mask: Any) -> Any:
        return intervene(states, targets.to(states.device, states.dtype), how, setting.strength, mask[..., None])[0]

    return lambda prompts: encode_edited(prompts, edit)


def _with_baseline(model: Any, setting: WorldSetting, vectors: Path) -> Any:
    """The model under a baseline; concepts are texts, as in the papers."""
    use_comfyui()
    import torch
    from safetensors.torch import load_file

    from . import baseline_patches
    from .baselines import SLD_PRESETS

    how = setting.parameters
    if setting.baseline == "SLD":
        return baseline_patches.with_sld(model, encode_text([how["concept"]])[0], SLD_PRESETS[how["preset"]])
    if setting.baseline == "SAFREE":
        states, mask = encode_text(how["concepts"].split(", "))
        means = states.sum(dim=1) / mask.sum(dim=1, keepdim=True)
        return baseline_patches.with_safree(model, means, how["alpha"], how["most"])
    if setting.baseline == "CASteer":
        stored = load_file(vectors / setting.vector)
        directions = torch.stack([stored[name] for name in how["concepts"].split(", ")], dim=2)
        return baseline_patches.with_casteer(model, directions, stored["sigmas"].tolist(), how["beta"])
    raise ValueError(f"There is no baseline '{setting.baseline}'; choose SLD, SAFREE or CASteer.")


def _vector(setting: WorldSetting, vectors: Path) -> Any:
    vector = load(vectors / setting.vector)
    return vector.with_mix(setting.mix or vector.mix)


def load(path: Path) -> Any:
    """The vector in a file."""
    use_comfyui()
    from safety_steering_pack.safety_steering.vectors.file import load_vector

    return load_vector(path)


def acts_on(setting: WorldSetting, vectors: Path, prompts: Sequence[str]) -> np.ndarray:
    """Which prompts a setting can change, bool (n,): those on which its detectors open the gate, or whose text states
    change if it edits nothing else; else all.
    """
    if setting.gated_by:
        return opened_by(load(vectors / setting.gated_by), prompt_gate(setting), prompts)
    if not setting.vector or setting.baseline or setting.negative:
        return np.ones(len(prompts), dtype=bool)
    vector = _vector(setting, vectors)
    if setting.hook_points != ("conditioning",) or vector.at("conditioning").bins > 1:
        by_prompt = setting.gate == "prompt"
        return opened_by(vector, intervention_of(setting), prompts) if by_prompt else np.ones(len(prompts), dtype=bool)
    states, edited, _ = _edited(setting, vectors, prompts)
    changed: np.ndarray = (edited != states).flatten(1).any(dim=1).numpy()
    return changed


def opened_by(vector: Any, how: Any, prompts: Sequence[str]) -> np.ndarray:
    """On which prompts a vector's detectors open the gate `prompt` for a category of its mix, bool (n,)."""
    weighed = [category for category, weight in vector.mix.items() if weight]
    opened: np.ndarray = _opened(vector, how, *encode_text(prompts), weighed).flatten(1).any(dim=1).numpy()
    return opened


def _opened(vector: Any, how: Any, states: Any, mask: Any, categories: Sequence[str]) -> Any:
    """Which of these categories the gate `prompt` lets act, boolean (n, 1, C), for text states (n, N, D)."""
    from safety_steering_pack.safety_steering.steering.prompt_gate import decide, make_gate

    return decide(states, mask[..., None], make_gate(vector.detectors, how)).of(categories).opened


def movement(setting: WorldSetting, vectors: Path, prompts: Sequence[str]) -> float:
    """Mean change of a token of these prompts, relative to its norm, under a setting that steers the text states."""
    return float(_edited(setting, vectors, prompts)[2].shift.mean())


def _edited(setting: WorldSetting, vectors: Path, prompts: Sequence[str]) -> tuple[Any, Any, Any]:
    """Text states of the prompts (n, N, D) before and after a setting, and the effect."""
    from safety_steering_pack.safety_steering.steering.interventions import intervene, stack_targets

    vector, how = _vector(setting, vectors), intervention_of(setting)
    states, mask = encode_text(prompts)
    targets = stack_targets(vector.at("conditioning"), vector.mix, 0).to(states.device, states.dtype)
    opened = _opened(vector, how, states, mask, targets.categories) if how.gate == "prompt" else None
    edited, effect = intervene(states, targets, how, setting.strength, mask[..., None], opened)
    return states, edited, effect


def effect(model: Any) -> tuple[float, float]:
    """Mean relative change of a token, and share of tokens acted on, over the last runs that acted."""
    use_comfyui()
    from safety_steering_pack.bridge.steering.apply import steerings_of

    hooks = [
        hook for steering in steerings_of(model) for run in steering.traces for call in run.calls for hook in call.hooks
    ]
    if not hooks:
        return 0.0, 0.0
    return float(np.mean([hook.shift for hook in hooks])), float(np.mean([hook.acted for hook in hooks]))
