"""Cross-validation over unsafe elements: fit without some elements, measure on prompts that show them.

Validation pairs have other subjects and noise than training pairs, but the same unsafe elements, and many test pairs
show elements that no fit has seen. So directions are chosen on four folds, each of which leaves one unsafe element of
each category out of the fit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..measuring.measure import Outcome, join, measure
from ..measuring.settings import Prompts, WorldSetting
from ..runtime import use_comfyui
from ..scenes.render import Scene
from ..scenes.splits import prompt_pairs
from ..scenes.world import CATEGORIES, HELD_OUT_ELEMENTS, UNSAFE_ELEMENTS
from .capture_states import COUNTS, open_activations, states_folder
from .capture_states import SEED as CAPTURE_SEED
from .fit_native import METHODS, fit

PER_FOLD, SEED = 15, 5


def folds() -> list[tuple[str, ...]]:
    """Four times one element of each category, every element that fits may see exactly once."""
    seen = [
        [e.name for e in UNSAFE_ELEMENTS if e.category == category and e.name not in HELD_OUT_ELEMENTS]
        for category in CATEGORIES
    ]
    return list(zip(*seen, strict=True))


def fold_folder(left_out: Sequence[str]) -> Path:
    """Where what was fitted without some elements is kept."""
    return states_folder() / "folds" / "-".join(left_out).replace(" ", "_")


def pairs_with(elements: Sequence[str]) -> set[str]:
    """Names of the captured training pairs that show one of these elements."""
    pairs = prompt_pairs("train", COUNTS["train"], CAPTURE_SEED)
    return {f"train-{i:04d}" for i, pair in enumerate(pairs) if pair.unsafe.element in elements}


def fit_fold(left_out: Sequence[str]) -> Path:
    """Fit the text states without some elements; the folder that holds a vector a method."""
    use_comfyui()
    from safety_steering_pack.safety_steering.vectors.file import save_vector

    captured = without_pairs(open_activations("conditioning"), pairs_with(left_out))
    folder = fold_folder(left_out)
    folder.mkdir(parents=True, exist_ok=True)
    for method, name in METHODS.items():
        vector, _ = fit(method, {("conditioning",): captured})
        save_vector(vector, folder / name)
    return folder


def without_pairs(captured: Any, excluded: Collection[str]) -> Any:
    """The captured states with the rows of some pairs in a split of their own, so that no fit sees them."""
    from safety_steering_pack.safety_steering.activations import Activations, Row

    class Without(Activations):
        def rows(self) -> list[Row]:
            return [replace(row, split="left out") if row.pair in excluded else row for row in super().rows()]

    return Without(captured.folder, captured.source)


def measure_held_out(
    settings: Sequence[WorldSetting],
    fit_without: Callable[[Sequence[str]], Path] = fit_fold,
    per_fold: int = PER_FOLD,
    seed: int = SEED,
    processes: int = 0,
) -> dict[str, Mapping[str, Outcome]]:
    """Outcomes of each setting by its name and by label, over all folds: each measured on what its fit left out.

    fit_without: makes the vectors without some elements and gives their folder.
    """
    found: list[dict[str, dict[str, Outcome]]] = []
    for left_out in folds():
        prompts = prompts_of(left_out, per_fold, seed)
        found.append(measure(settings, prompts, fit_without(left_out), processes=processes))
    return {
        setting.name: {label: join([fold[setting.name][label] for fold in found]) for label in setting.labels}
        for setting in settings
    }


def held_out_scenes(per_fold: int = PER_FOLD, seed: int = SEED) -> list[Scene]:
    """The benign scenes of all folds, in the order of `measure_held_out`."""
    return [scene for left_out in folds() for scene in prompts_of(left_out, per_fold, seed).all_scenes("benign")]


def prompts_of(left_out: tuple[str, ...], per_fold: int = PER_FOLD, seed: int = SEED) -> Prompts:
    """The validation prompts of one fold."""
    return Prompts("validation", per_fold, (seed,), elements=left_out)
