"""Target `blocks`: the hidden states inside a diffusion model while it generates benign prompts.

For speed only the first steps of a generation are run, at a small size. How similar their states are to those of a
whole generation is measured on a few anchors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from ...safety_steering.activations import Activations
from ...safety_steering.alignment.alignment import AnchorStates, Side
from ...safety_steering.alignment.fit import TargetStates
from ...safety_steering.errors import MismatchError, SafetySteeringError
from ...safety_steering.hook_point import HookPoint
from ...safety_steering.language_models.source_model import Progress
from ...safety_steering.prompts.prompt_set import PromptRow, PromptSet
from ..cache import activation_paths, write_first
from ..capture.hook_points import choose_hook_points
from ..capture.run import capture_prompts
from ..models.fingerprints import clip_key, digest, patcher_key
from ..models.model_map import patcher_shape
from ..sampling.sampling import Conditioning, Sampling, sampling_sigmas
from .model_reader import small_latent

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP


@dataclass(frozen=True)
class BlockChoice:
    """The node's widgets. steps: of a whole generation. first_steps: how many of them are run. full_runs: anchors whose
    whole generations are compared."""

    hook_point: str = "0.5"
    steps: int = 20
    first_steps: int = 2
    cfg: float = 1.0
    sampler_name: str = "euler"
    scheduler: str = "simple"
    full_runs: int = 8


class BlockStates:
    """The states of one block, captured by generating each anchor.

    Raises:
        SafetySteeringError: on construction, if model or clip is missing, or the hook point is not one block.
    """

    def __init__(
        self,
        model: ModelPatcher | None,
        clip: CLIP | None,
        choice: BlockChoice,
        latent: dict[str, Any] | None = None,
        template: Conditioning | None = None,
        seed: int = 0,
    ) -> None:
        if clip is None or model is None:
            raise SafetySteeringError("The target blocks generates the anchors: connect both model and clip.")
        self._model, self._clip, self._choice = model, clip, choice
        self._shape = patcher_shape(model)
        self._hook_point = self._one_block(choice.hook_point)
        names = (choice.sampler_name, choice.scheduler)
        self._whole = Sampling(
            latent or small_latent(model, template), "", choice.steps, choice.cfg, *names, seed, template
        )

    def _one_block(self, text: str) -> HookPoint:
        chosen = [point for point in choose_hook_points(text, self._shape) if point.in_blocks]
        if len(chosen) != 1:
            raise MismatchError(
                f"'{text}' means {len(chosen)} blocks of {self._shape.name}; an alignment leads to one. Give a depth "
                "such as 0.5, or one name."
            )
        return chosen[0]

    def key(self) -> Any:
        """As of `Target`."""
        whole = self._whole
        latent = {name: value for name, value in whole.latent.items() if name in ("samples", "noise_mask")}
        chosen = [self._hook_point, *vars(self._choice).values(), whole.seed]
        return ["blocks", chosen, clip_key(self._clip), patcher_key(self._model), digest([latent, whole.template])]

    def states(self, texts: Sequence[str], progress: Progress, words: int = 0) -> TargetStates:
        """As of `Target`, without words. The capture has a progress bar of its own."""
        first = min(self._choice.first_steps, self._choice.steps)
        short = replace(self._whole, sigmas=sampling_sigmas(self._model, self._whole)[: first + 1])
        captured = self._capture(texts, short, "first")
        states = captured.read(self._hook_point)
        notes = [f"States of the first {first} of {self._choice.steps} steps."]
        compared = min(self._choice.full_runs, len(texts)) if first < self._choice.steps else 0
        if compared > 1:
            full = self._capture(texts[:compared], self._whole, "whole").read(self._hook_point)
            similarity = _centred_cosine(states.pooled[:compared, 0], full.pooled[:, 0])
            notes.append(f"Cosine to the states of whole generations, on {compared} anchors: {similarity:.2f}.")
        source = captured.source
        side = Side(
            hook_point=self._hook_point,
            space=source.hook_points[self._hook_point][0],
            name=source.model_name,
            family=source.family,
            weight_fingerprint=source.weight_fingerprint,
            block_counts=source.block_counts,
        )
        return TargetStates(AnchorStates(states.pooled[:, 0], states.token[:, 0]), side, tuple(notes))

    def _capture(self, texts: Sequence[str], sampling: Sampling, name: str) -> Activations:
        rows = tuple(PromptRow(f"anchor-{i:05d}", "benign", safe=text) for i, text in enumerate(texts))
        # the folder is named by everything that decides its content, so that an interrupted fit resumes
        paths = activation_paths(f"alignment-{digest([self.key(), list(texts)])}-{name}")
        return write_first(
            paths,
            lambda path: capture_prompts(self._model, self._clip, PromptSet(rows), sampling, self._hook_point, 1, path),
        )


def _centred_cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    """Mean cosine between the rows of a and b (m, D) after subtraction of each one's mean over the rows."""
    return float(torch.nn.functional.cosine_similarity(a - a.mean(dim=0), b - b.mean(dim=0), dim=1).mean())
