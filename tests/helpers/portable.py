"""Two made-up worlds that share their meaning: a source space, a target space, and a portable vector of the source."""

from __future__ import annotations

import torch
from safety_steering_pack.safety_steering.vectors.vector import (
    Anchors,
    Direction,
    HookPointDirections,
    SafetyVector,
    Suggestion,
    VectorInfo,
)

SOURCE, TARGET, MEANING = 24, 40, 12
SPACE = "tinylm/source.3"
CATEGORIES = ("violence", "illegal")
UNSAFE = 12.0  # how much of its fact an unsafe text has, in standard deviations of benign texts


class World:
    """States are linear in `MEANING` latent facts, plus noise. An unsafe prompt differs from a safe one by one fact."""

    def __init__(self, seed: int = 0, noise: float = 0.05, source: int = SOURCE, target: int = TARGET) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.noise = noise
        self.to_source = self._random(MEANING, source)
        self.to_target = self._random(MEANING, target) * 3
        self.source_offset, self.target_offset = self._random(source) * 5, self._random(target) * 5

    def _random(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=self.generator)

    def facts(self, rows: int, category: str = "") -> torch.Tensor:
        """Facts of benign texts, or of texts that are unsafe in a category."""
        facts = self._random(rows, MEANING)
        if category:
            facts[:, CATEGORIES.index(category)] += UNSAFE
        return facts

    def source(self, facts: torch.Tensor) -> torch.Tensor:
        """States of texts with these facts in the source."""
        clean = facts @ self.to_source + self.source_offset
        return clean + self.noise * self._random(*clean.shape)

    def target(self, facts: torch.Tensor) -> torch.Tensor:
        """States of texts with these facts in the target."""
        clean = facts @ self.to_target + self.target_offset
        return clean + self.noise * self._random(*clean.shape)

    def direction(self, category: str, to: torch.Tensor) -> torch.Tensor:
        """From unsafe to safe: the fact taken away, in the space that `to` leads to."""
        return -UNSAFE * to[CATEGORIES.index(category)].double()

    def vector(
        self, anchors: int = 100, facts: torch.Tensor | None = None, texts: tuple[str, ...] = ()
    ) -> SafetyVector:
        """A portable vector of both categories; its anchors are `facts`, or fresh benign ones."""
        states = self.source(self.facts(anchors) if facts is None else facts)
        texts = texts or anchor_texts(len(states))
        categories = {}
        for name in CATEGORIES:
            v = self.direction(name, self.to_source)
            u = v / v.norm()
            along = states.double() @ u
            one = torch.ones(1)
            categories[name] = Direction(
                u[None].float(),
                v.norm()[None].float(),
                along.mean()[None].float(),
                along.std() * one,
                along.std() * one,
            )
        point = HookPointDirections(SPACE, torch.tensor([0.0, 1.0]), states.norm(dim=1).median()[None], categories)
        info = VectorInfo(
            kind="source",
            gap_kind="measured",
            model_name="tinylm",
            pooling="mean",
            method="paired mean difference",
            suggestion=Suggestion(hook_points=("source.3",), mix={"violence": 1.0, "illegal": 0.5}),
            licence="CC0-1.0",
            provenance=({"step": "extract"},),
        )
        return SafetyVector({"source.3": point}, info, anchors=Anchors("source.3", texts, states))


def anchor_texts(count: int) -> tuple[str, ...]:
    """Benign texts, all different."""
    return tuple(f"a quiet place number {number} in the morning" for number in range(count))
