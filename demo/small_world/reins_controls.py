"""Controls: directions that should do nothing, moved as far as the best one; and the right directions, backwards.

How far a setting moves the text states is computed, not generated: steering there acts on the states alone.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from .measuring.settings import Prompts, Setting, captions
from .measuring.steered import movement
from .native.methods import AS_ONE
from .native.vectors import LDA, RANDOM, SHUFFLED, TEXT, WORDS

ON = Prompts("validation", 60, (5,))


def matched(best: Setting, vectors: Path) -> list[Setting]:
    """A random and a shuffled-labels direction that move every prompt's tokens by the share of their norm by which the
    best setting moves those of unsafe prompts.

    They have no gate: its own gate would hardly ever open for such a direction, and the control would be too kind.
    """
    prompts = captions(ON.all_scenes("unsafe"), "t2v")
    wanted = movement(best, vectors, prompts)
    controls = []
    for name, vector in (("random", RANDOM), ("shuffled", SHUFFLED)):
        one = Setting(f"{name} direction", vector, name, TEXT, "add", strength=1.0, mix=AS_ONE)
        controls.append(replace(one, strength=round(wanted / movement(one, vectors, prompts), 2)))
    return controls


def backwards() -> list[Setting]:
    """Strength -1 and -4 on benign prompts, with the gap of pooled means and with that of the words that differ."""
    return [
        Setting(
            f"strength {strength:g} on benign prompts, {gap}",
            vector,
            "native",
            TEXT,
            "add",
            strength=strength,
            mix=AS_ONE,
            labels=("benign",),
        )
        for vector, gap in ((LDA, "pooled gap"), (WORDS, "gap of the words"))
        for strength in (-1.0, -4.0)
        if not (vector == WORDS and strength == -4.0)
    ]
