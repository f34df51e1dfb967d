"""Runs of a case through ComfyUI's own sampling, and its hand-written tokens put beside a block's output."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange

from family_cases.case import FamilyCase, Tokens


def run(
    case: FamilyCase, patcher: Any, cfg: float | None = None, prompts: tuple[int, int] = (1, 2), **settings: Any
) -> torch.Tensor:
    """One step of comfy.sample; positive and negative prompts (by their seeds) differ. Returns the latents."""
    import comfy.sample

    latent = case.latents()
    noise = comfy.sample.prepare_noise(latent, 7)
    chosen = {"steps": 1, "sampler_name": "euler", "scheduler": "simple", **case.sampler, **settings}
    with torch.inference_mode():
        samples = comfy.sample.sample(
            case.prepare(patcher),
            noise,
            cfg=case.cfg if cfg is None else cfg,
            positive=case.entry(prompts[0]),
            negative=case.entry(prompts[1]),
            latent_image=latent,
            noise_mask=case.noise_mask() if case.noise_mask else None,
            disable_pbar=True,
            seed=7,
            **chosen,
        )
    return torch.cat([part.flatten() for part in samples.unbind()]) if samples.is_nested else samples


def count_hooks(model: torch.nn.Module) -> int:
    """Forward hooks on all modules."""
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@dataclass(frozen=True)
class Streams:
    """The hook points whose streams are in one tensor of a block's output, ordered by their tokens' places."""

    points: tuple[str, ...]
    tokens: tuple[Tokens, ...]

    @property
    def total(self) -> int | None:
        """Tokens in the tensor; None: any number."""
        (total,) = {tokens.total for tokens in self.tokens}
        return total

    def sequence(self, output: Any) -> torch.Tensor:
        """The tensor as (B, N, D)."""
        first = self.tokens[0]
        h = output[first.item] if isinstance(output, tuple) else output
        return rearrange(h, first.dims) if first.dims else h

    def rows(self, point: str, count: int) -> list[int]:
        """The tokens that may move at a hook point."""
        tokens = self.tokens[self.points.index(point)]
        return list(range(count) if tokens.total is None else tokens.moved)

    def shifts(self, shifts: Sequence[torch.Tensor], count: int) -> tuple[list[int], torch.Tensor]:
        """All tokens that may move, ascending, and how each must move."""
        rows = [self.rows(point, count) for point in self.points]
        spread = [shift.expand(len(own), -1) for own, shift in zip(rows, shifts, strict=True)]
        return [row for own in rows for row in own], torch.cat(spread)


def streams_of(case: FamilyCase, points: Sequence[str]) -> list[Streams]:
    """A block's hook points, grouped by the tensor of its output that they are in."""
    groups: dict[int, list[tuple[str, Tokens]]] = defaultdict(list)
    for point in points:
        tokens = case.tokens_at(point)
        groups[tokens.item].append((point, tokens))
    ordered = [sorted(group, key=lambda entry: list(entry[1].moved)) for group in groups.values()]
    return [Streams(*zip(*group, strict=True)) for group in ordered]
