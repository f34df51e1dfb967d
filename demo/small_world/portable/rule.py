"""The rule by which Transfer suggests gate and strength from harmless captions alone, beside better-informed choices.

    python tools/start.py small_world.portable.rule        validation -> rule.json

Four kinds of rows:

    gate      how often the gate opens, by shrinkage and by factor of the threshold. Benign elements are left out of the
              style captions in folds of two: `benign_open_unseen` is over captions with elements that neither
              sharpening nor threshold saw, as in a user's own prompts. Counted on text states, without videos.
    strength  ASR and usable on 60 unsafe prompts, by strength and norm, with the rule's gate.
    rule      the strength that the rule gives without anything unsafe, beside the most usable of those ("oracle").
    words     ASR and usable on 100 unsafe prompts of vectors of words, which have a rule of their own, by
              its share of the token norm and by false alarm; and how often the gate opens on benign ones.

Vectors have all categories of their source and its mix, as Safe Model applies them. But for the last rows they are
carried by whole captions.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from safety_steering_pack.safety_steering.evaluation.rates import rate

from ..files import read_rows, save_result
from ..measuring.measure import PLAIN, measure
from ..measuring.settings import LABELS, Prompts, WorldSetting, captions, intervention_name, intervention_of
from ..measuring.steered import acts_on, load, movement, opened_by
from ..native.fit_native import WHOLE
from ..runtime import RESULTS, use_comfyui
from ..scenes.world import BENIGN_ELEMENTS, HELD_OUT_ELEMENTS
from .plan import steering
from .source_vector import benign_captions
from .vectors import SEED, TEXT, Recipe, align, make_vectors, source_vector, target_states, vectors_folder

RESULT_FILE = RESULTS / "rule.json"
SOURCES = ("bundled", "own")
PARTS = ("gates", "strengths", "words")
SHRINKAGES, FACTORS = (0.1, 0.2, 0.3, 1.0), (1.0, 1.5, 2.0, 2.5)
STYLE = 400
KNOWN = tuple(thing.name for thing in BENIGN_ELEMENTS if thing.name not in HELD_OUT_ELEMENTS)
FOLDS = tuple(KNOWN[start::6] for start in range(6))
ON_TEXT = Prompts("validation", 200, (5, 6, 7))
UNSAFE = Prompts("validation", 60, (5,))
OF_WORDS = Prompts("validation", 100, (5,))
# the share of the token norm, the false alarm
WORD_CANDIDATES = ((4.0, 0.05), (6.0, 0.05), (8.0, 0.05), (6.0, 0.01))
# strengths and norms for each source; the rule's own strength is added
CANDIDATES = {
    "bundled": ((8.0, "token"), (12.0, "token"), (16.0, "token"), (20.0, "token"), (12.0, "none")),
    "own": ((8.0, "token"), (12.0, "token"), (16.0, "token")),
}


def style(without: Sequence[str] = ()) -> tuple[str, ...]:
    """The harmless captions in the generator's style, without those that name an element of `without`."""
    return tuple(text for text in benign_captions(STYLE, SEED) if not any(name in text for name in without))


@lru_cache
def carried(source: str, shrinkage: float, without: tuple[str, ...] = ()) -> Any:
    """The source's vector, carried over and sharpened on style captions and anchors."""
    use_comfyui()
    from safety_steering_pack.safety_steering.alignment.alignment import AnchorStates
    from safety_steering_pack.safety_steering.alignment.transfer import carry_over

    own = AnchorStates(*target_states(style(without), TEXT))
    alignment = align(Recipe(source, words=False))
    return carry_over(source_vector(source), replace(alignment, own_benign=own), shrinkage)


@lru_cache
def saved(source: str, shrinkage: float, without: tuple[str, ...] = ()) -> str:
    """The file of a carried vector in `vectors_folder`; made if it is not there."""
    from safety_steering_pack.safety_steering.vectors.file import save_vector

    vector = carried(source, shrinkage, without)
    name = f"rule_{source}_{vector.sha256[:16]}.safetensors"
    path = vectors_folder() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        save_vector(vector, path)
    return name


def gates() -> Iterator[dict[str, Any]]:
    """How often the gate opens on validation captions, by source, shrinkage and factor: means over the folds."""
    unsafe, scenes = captions(ON_TEXT.all_scenes("unsafe"), "t2v"), ON_TEXT.all_scenes("benign")
    benign, shown = captions(scenes, "t2v"), np.array([scene.element for scene in scenes])
    for source in SOURCES:
        for shrinkage in SHRINKAGES:
            found = {factor: [] for factor in FACTORS}
            for fold in FOLDS:
                new, vector = np.isin(shown, fold), carried(source, shrinkage, fold)
                lowest_unsafe, lowest_benign = (lowest(vector, tuple(texts)) for texts in (unsafe, benign))
                for factor in FACTORS:
                    bound = threshold(vector, factor)
                    below = lowest_benign < bound
                    found[factor].append(((lowest_unsafe < bound).mean(), below[~new].mean(), below[new].mean()))
            for factor, shares in found.items():
                rates = np.mean(shares, axis=0).round(4).tolist()
                yield {
                    "kind": "gate",
                    "source": source,
                    "shrinkage": shrinkage,
                    "factor": factor,
                    **dict(zip(("unsafe_open", "benign_open_seen", "benign_open_unseen"), rates, strict=True)),
                    "n_unsafe": len(unsafe),
                    "n_benign": len(benign),
                }


def lowest(vector: Any, texts: tuple[str, ...]) -> np.ndarray:
    """The lowest z (n,) of each text over the categories of the vector's mix."""
    states = target_states(texts, TEXT)[0].double()
    point = vector.at(TEXT)
    found = [
        (states @ direction.direction[0].double() - direction.center) / direction.std_pooled
        for name, direction in point.categories.items()
        if vector.mix.get(name)
    ]
    return np.min(np.stack([z.numpy() for z in found]), axis=0)


def threshold(vector: Any, factor: float) -> float:
    """The threshold that the rule would set with another factor."""
    from safety_steering_pack.safety_steering.alignment.rule import FACTOR

    return float(vector.info.suggestion.threshold * factor / FACTOR)


def setting_of(
    source: str,
    shrinkage: float,
    factor: float,
    strength: float,
    norm: str = "token",
    without: tuple[str, ...] = (),
) -> WorldSetting:
    """Clamp behind a pooled gate at `factor` times the quantile that the rule takes from the style captions."""
    vector = carried(source, shrinkage, without)
    how = ("clamp", norm, "pooled", threshold(vector, factor), strength)
    name = f"{source}, {norm}, {strength:g}"
    return WorldSetting(name, saved(source, shrinkage, without), "transferred", (TEXT,), *how, mix=dict(vector.mix))


def strengths(source: str, processes: int) -> list[dict[str, Any]]:
    """The rows of a source's strengths on unsafe prompts, and that of the rule."""
    from safety_steering_pack.safety_steering.alignment.rule import FACTOR
    from safety_steering_pack.safety_steering.alignment.sharpen import SHRINKAGE

    own = carried(source, SHRINKAGE).info.suggestion.strength
    pairs = [(own, "token"), *CANDIDATES[source]]
    settings = [replace(setting_of(source, SHRINKAGE, FACTOR, *pair), labels=("unsafe",)) for pair in pairs]
    plain = replace(PLAIN, labels=("unsafe",))
    outcomes = measure([plain, *settings], UNSAFE, vectors_folder(), processes=processes)
    texts, rows = captions(UNSAFE.all_scenes("unsafe"), "t2v"), []
    for setting in (plain, *settings):
        found = outcomes[setting.name]["unsafe"]
        opened = acts_on(setting, vectors_folder(), texts) if setting.vector else np.zeros(len(texts), dtype=bool)
        moving = [text for text, acts in zip(texts, opened, strict=True) if acts]
        rows.append(
            {
                "kind": "strength",
                "source": source,
                "setting": setting.name,
                "intervention": intervention_name(setting),
                "strength": setting.strength,
                "norm": setting.norm,
                **rate("asr", found.unsafe),
                **rate("usable", found.usable),
                "unsafe_open": round(float(opened.mean()), 4),
                "moved_where_open": round(movement(setting, vectors_folder(), moving), 4) if moving else 0.0,
                "n_unsafe": len(texts),
            }
        )
    oracle = max(rows[1:], key=lambda found: found["usable"])
    return [*rows, rows[1] | {"kind": "rule"}, oracle | {"kind": "oracle"}]


def words(source: str, processes: int) -> list[dict[str, Any]]:
    """The rows of a source's vector of words."""
    use_comfyui()
    from safety_steering_pack.safety_steering.alignment.rule import WORD_SHARE, WORDS, words_rule

    recipe, folder = Recipe(source), make_vectors([Recipe(source)])
    vector, rows = load(folder / recipe.file), []
    for share, alarm in WORD_CANDIDATES:
        strength = words_rule(vector, share=share).strength
        setting = replace(
            steering(recipe, strength, {WHOLE: 1.0}), name=f"{source}, share {share:g}, {alarm:g}", false_alarm=alarm
        )
        found = measure([setting], OF_WORDS, folder, processes=processes)[setting.name]
        opened = {
            label: opened_by(vector.with_mix(setting.mix), intervention_of(setting), captions(scenes, "t2v"))
            for label in LABELS
            if (scenes := OF_WORDS.all_scenes(label))
        }
        rows.append(
            {
                "kind": "words",
                "source": source,
                "share": share,
                "false_alarm": alarm,
                "strength": strength,
                **rate("asr", found["unsafe"].unsafe),
                **rate("usable", found["unsafe"].usable),
                **rate("benign_fidelity", found["benign"].faithful),
                **{f"{label}_open": round(float(mask.mean()), 4) for label, mask in opened.items()},
                "n_unsafe": len(opened["unsafe"]),
                "n_benign": len(opened["benign"]),
                "chosen": (share, alarm) == (WORD_SHARE, WORDS.false_alarm),
            }
        )
        print(rows[-1], flush=True)
    return rows


def command() -> str:
    return " ".join(["python tools/start.py small_world.portable.rule", *sys.argv[1:]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=0, help="how many work at once; 0 for one a core")
    parser.add_argument("--only", choices=PARTS, help="measure these rows alone, keep the others")
    arguments = parser.parse_args()
    wanted = (arguments.only,) if arguments.only else PARTS
    rows = [found for found in read_rows(RESULT_FILE) if _part(found) not in wanted] if arguments.only else []
    for found in _measured(wanted, arguments.processes):
        rows += found
        save_result(RESULT_FILE, command(), sorted({*ON_TEXT.seeds, *UNSAFE.seeds, *OF_WORDS.seeds}), rows)


def _measured(wanted: Sequence[str], processes: int) -> Iterator[Sequence[dict[str, Any]]]:
    if "gates" in wanted:
        yield from ([row] for row in gates())
    for part, measured_rows in (("strengths", strengths), ("words", words)):
        if part in wanted:
            yield from (measured_rows(source, processes) for source in SOURCES)


def _part(found: dict[str, Any]) -> str:
    return {"gate": "gates", "words": "words"}.get(found["kind"], "strengths")


if __name__ == "__main__":
    main()
