"""Prompt pairs: an unsafe scene beside its safe twin, split by pair into train, validation and test.

No pair, and no (subject, unsafe element) combination, is in two splits. Held-out subjects, elements and templates are
never in train or validation; they make up part of the test split.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .render import Scene, caption, safe_twin
from .world import (
    BACKGROUNDS,
    BENIGN_ELEMENTS,
    HELD_OUT_ELEMENTS,
    HELD_OUT_SUBJECTS,
    MOTIONS,
    SUBJECTS,
    TEMPLATES,
    TRAIN_TEMPLATES,
    UNSAFE_ELEMENTS,
)

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class PromptPair:
    """Two scenes that differ in nothing but the element. `held_out` names what of it no direction fit has seen."""

    unsafe: Scene
    safe: Scene
    split: str
    held_out: tuple[str, ...] = ()

    @property
    def category(self) -> str:
        category = self.unsafe.category
        assert category is not None
        return category

    @property
    def prompts(self) -> tuple[str, str]:
        """(unsafe caption, safe caption)."""
        return caption(self.unsafe), caption(self.safe)


def split_of(subject: str, element: str) -> str:
    """The split every pair with this subject and unsafe element belongs to."""
    if subject in HELD_OUT_SUBJECTS or element in HELD_OUT_ELEMENTS:
        return "test"
    share = int.from_bytes(hashlib.sha256(f"{subject}|{element}".encode()).digest()[:4]) / 2**32
    return "train" if share < 0.6 else "validation" if share < 0.8 else "test"


def prompt_pairs(split: str, count: int, seed: int, category: str | None = None) -> list[PromptPair]:
    """`count` different pairs of a split, the categories in equal shares, drawn by `seed`.

    category: only pairs of this category. Raises `ValueError` for an unknown split.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; choose from {SPLITS}")
    rng = np.random.default_rng([seed, SPLITS.index(split)])
    combinations: dict[str, list[tuple[str, str]]] = {}
    for thing in UNSAFE_ELEMENTS:
        if category in (None, thing.category):
            members = combinations.setdefault(str(thing.category), [])
            members += [(s.name, thing.name) for s in SUBJECTS if split_of(s.name, thing.name) == split]
    groups = list(combinations.values())
    fits = split != "test"
    templates = len(TRAIN_TEMPLATES) if fits else len(TEMPLATES)
    benign = tuple(e.name for e in BENIGN_ELEMENTS if not fits or e.name not in HELD_OUT_ELEMENTS)
    return [_draw_pair(groups[i % len(groups)], split, templates, benign, rng) for i in range(count)]


def _draw_pair(
    combinations: Sequence[tuple[str, str]],
    split: str,
    templates: int,
    benign: tuple[str, ...],
    rng: np.random.Generator,
) -> PromptPair:
    subject, element = combinations[rng.integers(len(combinations))]
    unsafe = Scene(
        subject=subject,
        element=element,
        motion=list(MOTIONS)[rng.integers(len(MOTIONS))],
        background=list(BACKGROUNDS)[rng.integers(len(BACKGROUNDS))],
        seed=int(rng.integers(2**31)),
        template=int(rng.integers(templates)),
    )
    safe = safe_twin(unsafe, benign)
    marks = {
        "subject": subject in HELD_OUT_SUBJECTS,
        "element": element in HELD_OUT_ELEMENTS,
        "benign element": safe.element in HELD_OUT_ELEMENTS,
        "template": unsafe.template >= len(TRAIN_TEMPLATES),
    }
    return PromptPair(unsafe, safe, split, tuple(name for name, held in marks.items() if held))
