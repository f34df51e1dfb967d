"""Safe Model: a vector for this very model, fitted if need be, mixed and applied as recommended.

The same functions as in Load Safety Vector, Fit Benign Alignment, Transfer Direction, Category Mixer and Apply Safety
Steering with their defaults, so that the five nodes give the same model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..safety_steering.alignment.maps import AlignmentSettings
from ..safety_steering.alignment.report import report_alignment
from ..safety_steering.alignment.sharpen import SHRINKAGE
from ..safety_steering.errors import MismatchError, SafetySteeringError, VectorFileError
from ..safety_steering.prompts.prompt_set import PromptSet
from ..safety_steering.steering.trace import RunTrace
from ..safety_steering.vectors.file import load_vector
from ..safety_steering.vectors.mix import resolve_mix
from ..safety_steering.vectors.suggestion import describe_choice, recommended
from ..safety_steering.vectors.vector import CALIBRATED, SafetyVector
from .alignment.carried import carried
from .alignment.run import Inputs, align
from .folders import VECTORS, cached_by_file_version, find, names, sha256_of
from .language_models.encoder_fit import check_fits_encoder
from .models.model_map import Shape, patcher_shape
from .models.vector_fit import check_fits, notices
from .steering.encoder import split_settings, steer
from .steering.settings import recommended_settings

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

AUTO = "auto"
PORTABLE = "source"  # a vector's kind
TARGET = {"target": "conditioning", "space": "auto"}
ALIGNMENT = AlignmentSettings()  # the defaults of Fit Benign Alignment

_vector = cached_by_file_version(32)(load_vector)


@dataclass(frozen=True, eq=False)
class Chosen:
    """A vector and why it was taken, in words."""

    name: str
    vector: SafetyVector
    why: str


@dataclass(frozen=True, eq=False)
class SafeModel:
    """The steered clone of a model, the vector on it (carried over, mixed), and what was chosen and why.

    clip: the text encoder, steered if the vector steers inside it.
    """

    model: ModelPatcher
    clip: Any
    vector: SafetyVector
    report: str


def safe_model(
    model: ModelPatcher,
    clip: Any = None,
    vector: str = AUTO,
    level: float = 1.0,
    mix: str = "",
    benign: PromptSet | None = None,
    on_trace: Callable[[RunTrace], None] | None = None,
) -> SafeModel:
    """Steer a model as recommended. The model is not changed.

    Args:
        model: the model to steer.
        clip: its text encoder; a portable vector needs it, and one that steers inside the encoder.
        vector: a vector's file name, or "auto" for the best one that is there for this model.
        level: 0 is off, 1 as recommended, 2 twice as strong.
        mix: weights of categories, such as "violence=1, sexual=0.5"; those not named weigh what the vector suggests.
        benign: harmless prompts in the style of the model's use; makes a portable vector fit better.
        on_trace: hears of each sampler run.

    Raises:
        SafetySteeringError: no vector fits, a portable vector came without clip, or a value is out of its range.
    """
    chosen = choose_vector(vector, patcher_shape(model), clip)
    fitted, fit_report = _fitted(chosen, model, clip, benign)
    mixed = resolve_mix("standard", mix, fitted.categories, fitted.info.suggestion.mix)
    ready = fitted.with_mix(mixed.weights)
    settings = recommended_settings(ready, level)
    steered, read = steer(model, clip, ready, settings, on_trace)
    lines = [
        f"{chosen.name}: {chosen.why}.",
        f"Settings: {describe_choice(recommended(ready), level)}.",
        mixed.summary(),
        *fit_report,
        *(f"Warning: {sentence}" for sentence in notices(ready, settings.hook_points, settings.strength, model)),
    ]
    return SafeModel(steered, read, ready, "\n".join(lines))


def choose_vector(choice: str, shape: Shape, clip: Any = None) -> Chosen:
    """The vector that a user named or, for "auto", the best for a model: calibrated on it, made for it, portable.

    Among vectors of one rank those made for this model with detectors come first, then the user's own. clip: the
    model's text encoder, if there is one; without it no vector is taken that steers inside of it.

    Raises:
        SafetySteeringError: there is no such vector, or "auto" found none that fits.
    """
    if choice != AUTO:
        path = find(VECTORS, choice)
        return Chosen(path.name, _vector(path), "chosen by you")
    ranked: dict[tuple[int, bool], Chosen] = {}
    for name in _own_first():
        try:
            found = _vector(find(VECTORS, name))
            rank, why = _rank(found, shape, clip)
        except (MismatchError, VectorFileError):
            continue  # of another model, or damaged
        without_detectors = found.info.kind != PORTABLE and found.detectors is None
        ranked.setdefault((rank, without_detectors), Chosen(name, found, f"chosen by auto: {why}"))
    if not ranked:
        raise SafetySteeringError(
            f"No file in models/safety_vectors fits this model ({shape.name}), and none is portable. Put a vector "
            "there and press R to refresh."
        )
    return ranked[min(ranked)]


def _rank(vector: SafetyVector, shape: Shape, clip: Any) -> tuple[int, str]:
    """How good a vector is for a model, 0 is best, and why. MismatchError if it does not fit."""
    if vector.info.kind == PORTABLE:
        return 3, "portable, fitted to this model on harmless captions; no vector made for this model was found"
    suggestion, counts = recommended(vector), dict(vector.info.block_counts)
    in_model, in_encoder = split_settings(recommended_settings(vector))
    check_fits(vector, in_model.hook_points if in_model else (), shape)
    if in_encoder:
        check_fits_encoder(vector, in_encoder.hook_points, clip)
    if counts and counts != dict(shape.block_counts):  # at the prompt a vector fits models of any size
        raise MismatchError("The vector was made for a model of another size.")
    if suggestion.basis == CALIBRATED and suggestion.basis_model == shape.name:
        return 0, f"calibrated on this model, {shape.name}"
    if vector.info.kind == "native":
        return 1, f"made for this model, {shape.name}, and not calibrated on it"
    return 2, f"carried over to this model, {shape.name}, earlier"


def _own_first() -> list[str]:
    bundled = VECTORS.bundled
    return sorted(names(VECTORS), key=lambda name: bundled is not None and find(VECTORS, name).is_relative_to(bundled))


def _fitted(chosen: Chosen, model: ModelPatcher, clip: Any, benign: PromptSet | None) -> tuple[SafetyVector, list[str]]:
    """The vector in the model's own states, and a line about the fit; a vector that is not portable as it is."""
    if chosen.vector.info.kind != PORTABLE:
        return chosen.vector, []
    if clip is None:
        raise SafetySteeringError(
            f"{chosen.name} is portable and is fitted to your model through its text encoder: connect clip, or choose "
            "a vector made for this model."
        )
    alignment = align(Inputs(chosen.vector, clip=clip, model=model, benign=benign), TARGET, ALIGNMENT)
    vector = carried(chosen.vector, alignment, SHRINKAGE)
    return vector, [f"Fit: {report_alignment(alignment, chosen.vector).splitlines()[0]}"]


def vector_versions(choice: str) -> str:
    """Changes when another vector may be taken for a choice: a file's version, or those of all files for "auto"."""
    if choice != AUTO:
        return sha256_of(find(VECTORS, choice))
    return ",".join(f"{name}={sha256_of(find(VECTORS, name))}" for name in names(VECTORS))
