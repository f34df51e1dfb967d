"""What is measured: how the model is sampled (a setting), and on which prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..runtime import use_comfyui
from ..scenes.render import Scene, caption, neutral, render, start_frame
from ..scenes.splits import PromptPair, prompt_pairs

DRAWN = 20  # so many pairs are drawn for each that is kept, where only some elements are wanted
LABELS = ("unsafe", "benign")


@dataclass(frozen=True)
class WorldSetting:
    """How the model is sampled. The fields not named here are those of Apply Safety Steering.

    vector: a file in the folder given to `measure`; empty for unsteered. direction: its kind ("native", "random", ...
    or "none"), for the table. labels: which prompts it is measured on. baseline: a method of `baselines.py` instead of
    steering, with its `parameters`; `vector` is then the method's own file, if it has one. gated_by: a vector whose
    detectors decide, at `false_alarm`, on which prompts any of this acts; it needs no gate of its own then.
    """

    name: str
    vector: str = ""
    direction: str = "none"
    hook_points: tuple[str, ...] = ()
    kind: str = "add"
    norm: str = "none"
    gate: str = "off"
    threshold: float = -1.0
    strength: float = 0.0
    window: tuple[float, float] = (0.0, 1.0)
    mix: Mapping[str, float] = field(default_factory=dict)
    negative: str = ""
    labels: tuple[str, ...] = LABELS
    baseline: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    false_alarm: float = 0.0
    token_threshold: float | None = None
    gated_by: str = ""


@dataclass(frozen=True)
class Prompts:
    """Which prompts: `per_seed` pairs of a split for each of `seeds`, which also seeds the noise.

    task: "t2v"; "i2v" from a frame that shows the subject alone; "i2v_unsafe_image" from a frame that shows the unsafe
    element, with a prompt that does not name it. elements, categories: only pairs with these; empty means all.
    """

    split: str
    per_seed: int
    seeds: tuple[int, ...]
    task: str = "t2v"
    elements: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()

    def all_scenes(self, label: str) -> list[Scene]:
        """The scenes of every seed, in the order of `measure`'s outcomes."""
        return [scene for seed in self.seeds for scene in self.scenes(seed, label)]

    def all_pairs(self) -> list[PromptPair]:
        """The pairs of every seed, in the order of `measure`'s outcomes."""
        return [pair for seed in self.seeds for pair in self.pairs(seed)]

    def scenes(self, seed: int, label: str) -> list[Scene]:
        """The unsafe scenes of one seed, or their safe twins ("benign")."""
        return [pair.unsafe if label == "unsafe" else pair.safe for pair in self.pairs(seed)]

    def pairs(self, seed: int) -> list[PromptPair]:
        """The pairs of one seed; fewer of them are the first of more."""
        if not self.elements and not self.categories:
            return prompt_pairs(self.split, self.per_seed, seed)
        pairs = prompt_pairs(self.split, DRAWN * self.per_seed, seed)
        if self.elements:
            pairs = [pair for pair in pairs if pair.unsafe.element in self.elements]
        if self.categories:
            pairs = [pair for pair in pairs if pair.category in self.categories]
        return pairs[: self.per_seed]


def captions(scenes: Sequence[Scene], task: str) -> list[str]:
    """The prompt of each scene."""
    return [caption(neutral(scene) if task == "i2v_unsafe_image" else scene) for scene in scenes]


def start_frames(scenes: Sequence[Scene], task: str) -> np.ndarray | None:
    """The start frames of I2V, uint8 (n, SIZE, SIZE, 3); None for T2V."""
    if task == "t2v":
        return None
    return np.stack([render(scene)[0] if task == "i2v_unsafe_image" else start_frame(scene) for scene in scenes])


def intervention_of(setting: WorldSetting) -> Any:
    """The setting's intervention, as the product's."""
    use_comfyui()
    from safety_steering_pack.safety_steering.steering.interventions import Intervention

    return Intervention(
        setting.kind, setting.norm, setting.gate, setting.threshold, setting.false_alarm, setting.token_threshold
    )


def prompt_gate(setting: WorldSetting) -> Any:
    """The gate of `gated_by`, as the product's intervention."""
    return intervention_of(replace(setting, gate="prompt", threshold=0.0, token_threshold=None))


def intervention_name(setting: WorldSetting) -> str:
    """A setting's intervention in words, empty if it does not steer."""
    how = prompt_gate(setting) if setting.gated_by else intervention_of(setting)
    gate = f", {how.gate_in_words}" if how.gate_in_words else ""
    if setting.baseline:
        details = ", ".join(f"{name} {value}" for name, value in setting.parameters.items())
        return f"{setting.baseline}: {details}{gate}"
    if not setting.vector:
        return gate.removeprefix(", ")
    window = "" if setting.window == (0.0, 1.0) else f", window {setting.window[0]:g} to {setting.window[1]:g}"
    return f"{setting.kind}, norm {setting.norm}{gate}{window}"
