"""The methods that the table of native steering compares, and the settings that validation chooses from.

Every method has `BUDGET` settings; each is measured on the same held-out validation prompts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..measuring.settings import Prompts, WorldSetting, captions
from ..measuring.steered import movement
from ..scenes.world import CATEGORIES, HELD_OUT_ELEMENTS, UNSAFE_ELEMENTS
from .capture_states import BLOCK_HOOKS, CROSS_HOOKS
from .fit_native import WHOLE
from .vectors import (
    BLOCKS_LDA,
    BLOCKS_LDA_K1,
    BLOCKS_MEAN,
    BLOCKS_MEAN_K1,
    CASTEER,
    CROSS_ATTENTION,
    DIFFERING,
    DIFFERING_LDA,
    ELEMENTS,
    LDA,
    MEAN,
    RANDOM,
    SHUFFLED,
    TEXT,
    WORDS,
)

BUDGET = 4
BY_CATEGORY, AS_ONE = dict.fromkeys(CATEGORIES, 1.0), {WHOLE: 1.0}
# the baselines are told the same elements that the fits see
KNOWN = [element for element in UNSAFE_ELEMENTS if element.name not in HELD_OUT_ELEMENTS]
NAMES, THEMES = ", ".join(element.name for element in KNOWN), ", ".join(CATEGORIES)


FEW = ", ".join(next(e.name for e in KNOWN if e.category == category) for category in CATEGORIES)
EVERY_SECOND = ", ".join([element.name for element in KNOWN][::2])
MIDDLE = BLOCK_HOOKS[2:6]
FALSE_ALARM = 0.05  # of the gate `prompt`, as a fit suggests
GATED = "differing tokens, prompt gate"
READ = "cross-attention, prompt gate"
SAME_GATE = ", same gate"
MOVED_ON = Prompts("validation", 60, (5,))  # prompts on which the movement of a control is matched


def native(
    vector: str,
    kind: str,
    strength: float,
    mix: Mapping[str, float] = BY_CATEGORY,
    hooks: tuple[str, ...] = TEXT,
    norm: str = "none",
    gate: tuple[str, float] = ("off", -1.0),
    window: tuple[float, float] = (0.0, 1.0),
) -> WorldSetting:
    """Native steering; its name comes from its method."""
    return WorldSetting("", vector, "native", hooks, kind, norm, *gate, strength, window, mix)


def behind_prompt_gate(
    vector: str, strength: float, tokens: float, hooks: tuple[str, ...] = TEXT, false_alarm: float = FALSE_ALARM
) -> WorldSetting:
    """Native steering where the vector's detectors open, of the tokens below `tokens` std, with one direction."""
    one = native(vector, "clamp", strength, AS_ONE, hooks, gate=("prompt", 0.0))
    return replace(one, false_alarm=false_alarm, token_threshold=tokens)


def _methods() -> dict[str, list[WorldSetting]]:
    pooled, token = ("pooled", -2.5), ("token", -2.5)
    baselines = _baselines()
    return {
        **baselines,
        **{f"{name}{SAME_GATE}": [_same_gate(one) for one in settings] for name, settings in baselines.items()},
        GATED: [
            behind_prompt_gate(vector, strength, -2.0)
            for vector in (DIFFERING, DIFFERING_LDA)
            for strength in (6.0, 8.0)
        ],
        READ: [
            behind_prompt_gate(CROSS_ATTENTION, strength, tokens, CROSS_HOOKS)
            for strength, tokens in ((3.5, -1.0), (4.5, -1.0), (5.5, -1.0), (5.5, -1.5))
        ],
        **{f"add, norm {norm}": _ungated("add", (1.0, 2.0, 3.0), 3.0, norm) for norm in ("none", "token", "channel")},
        "ablate": _ungated("ablate", (1.0, 2.0, 4.0), 4.0),
        "clamp": _ungated("clamp", (2.0, 4.0, 6.0), 4.0),
        "clamp, gated": [
            *(native(LDA, "clamp", strength, gate=pooled) for strength in (4.0, 5.0, 6.0)),
            native(LDA, "clamp", 6.0, AS_ONE, gate=pooled),
        ],
        "blocks": _blocks(BLOCKS_LDA, BLOCKS_MEAN),
        "blocks, one sigma bin": _blocks(BLOCKS_LDA_K1, BLOCKS_MEAN_K1),
        "add, gated": [
            *(native(LDA, "add", strength, gate=pooled) for strength in (1.0, 2.0, 3.0)),
            native(LDA, "add", 4.0, AS_ONE, gate=pooled),
        ],
        "ablate, gated": [
            *(native(LDA, "ablate", strength, gate=pooled) for strength in (4.0, 6.0)),
            *(native(LDA, "ablate", strength, gate=pooled, norm="token") for strength in (6.0, 8.0)),
        ],
        "clamp, gated, token norm": [
            native(LDA, "clamp", strength, gate=pooled, norm="token") for strength in (4.0, 6.0, 8.0, 12.0)
        ],
        "clamp, gated by token": [
            *(native(LDA, "clamp", strength, gate=token) for strength in (4.0, 6.0, 8.0)),
            native(LDA, "clamp", 8.0, AS_ONE, gate=("token", -2.0)),
        ],
        "clamp, gated by token, token norm": [
            *(native(LDA, "clamp", strength, gate=token, norm="token") for strength in (6.0, 8.0, 12.0)),
            native(LDA, "clamp", 8.0, gate=("token", -2.0), norm="token"),
        ],
        "clamp, fitted on words, gated by token": [
            *(native(WORDS, "clamp", strength, AS_ONE, gate=token) for strength in (2.0, 4.0, 8.0)),
            native(WORDS, "clamp", 4.0, AS_ONE, gate=("token", -3.0)),
        ],
        "clamp, a direction an element, gated": [
            *(native(ELEMENTS, "clamp", strength, {}, gate=("pooled", -3.0)) for strength in (2.0, 3.0, 4.0)),
            native(ELEMENTS, "clamp", 3.0, {}, gate=("pooled", -2.5)),
        ],
        "text states and blocks": [
            native(BLOCKS_LDA, "clamp", strength, hooks=(*TEXT, *hooks), gate=pooled)
            for hooks in (MIDDLE, MIDDLE[:1])
            for strength in (4.0, 5.0)
        ],
        "blocks, gated by token": [
            native(BLOCKS_LDA, "clamp", strength, hooks=hooks, gate=("token", -1.5))
            for hooks in (MIDDLE, BLOCK_HOOKS)
            for strength in (4.0, 8.0)
        ],
    }


def _baselines() -> dict[str, list[WorldSetting]]:
    return {
        "negative prompt": [WorldSetting("", negative=text) for text in (NAMES, THEMES, FEW, EVERY_SECOND)],
        "SLD": [
            _baseline("SLD", concept=concept, preset=preset)
            for concept, preset in ((NAMES, "strong"), (NAMES, "max"), (THEMES, "max"), (FEW, "max"))
        ],
        "SAFREE": [
            _baseline("SAFREE", concepts=concepts, alpha=alpha, most=most)
            for concepts in (NAMES, THEMES)
            for alpha, most in ((0.01, 0.2), (0.01, 1.0))
        ],
        "CASteer": [
            _baseline("CASteer", CASTEER, concepts=concepts, beta=beta)
            for concepts, beta in ((WHOLE, 1.0), (WHOLE, 2.0), (WHOLE, 4.0), (THEMES, 2.0))
        ],
    }


def _same_gate(one: WorldSetting) -> WorldSetting:
    """A baseline that acts only on the prompts on which the detectors of native steering open."""
    return replace(one, false_alarm=FALSE_ALARM, gated_by=DIFFERING)


def _ungated(kind: str, by_category: tuple[float, ...], as_one: float, norm: str = "none") -> list[WorldSetting]:
    every = [native(LDA, kind, strength, norm=norm) for strength in by_category]
    return [*every, native(MEAN, kind, as_one, AS_ONE, norm=norm)]


def _blocks(lda: str, mean: str) -> list[WorldSetting]:
    gate = ("pooled", -2.5)
    return [
        native(lda, "clamp", 4.0, hooks=MIDDLE, gate=gate),
        native(lda, "clamp", 6.0, hooks=MIDDLE, gate=gate),
        native(lda, "clamp", 4.0, hooks=BLOCK_HOOKS, gate=gate),
        native(mean, "clamp", 4.0, hooks=MIDDLE, gate=("pooled", -2.0)),
    ]


def _baseline(name: str, vector: str = "", **parameters: Any) -> WorldSetting:
    return WorldSetting("", vector, "native" if vector else "none", baseline=name, parameters=parameters)


METHODS: Mapping[str, tuple[WorldSetting, ...]] = {
    name: tuple(replace(setting, name=f"{name} {number}") for number, setting in enumerate(settings, 1))
    for name, settings in _methods().items()
}


def matched(best: WorldSetting, vectors: Path) -> list[WorldSetting]:
    """Controls: a random and a shuffled-labels direction without gate, with the movement of the best setting.

    Each moves the tokens of every prompt by the same share of their norm as the best setting moves those of unsafe
    prompts. With a gate of its own, such a direction would leave most prompts alone and be too easy a control. The
    movement is computed from the text states, without generating. Each once more behind the detectors of native
    steering: what the gate alone is worth.
    """
    prompts = captions(MOVED_ON.all_scenes("unsafe"), "t2v")
    wanted = movement(best, vectors, prompts)
    controls = []
    for name, vector in (("random", RANDOM), ("shuffled", SHUFFLED)):
        one = WorldSetting(f"{name} direction", vector, name, TEXT, "add", strength=1.0, mix=AS_ONE)
        controls.append(replace(one, strength=round(wanted / movement(one, vectors, prompts), 2)))
    return controls + [replace(_same_gate(one), name=f"{one.name}{SAME_GATE}") for one in controls]


def backwards() -> list[WorldSetting]:
    """Controls: negative strengths on benign prompts, with the gap of pooled means and that of differing words."""
    return [
        WorldSetting(
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
