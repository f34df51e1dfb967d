"""Comparison: one prompt and seed, sampled with and without steering or with several settings; shown in the browser.

The browser gets two pictures that core itself can show, and a film for our slider.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.samplers
import folder_paths
import numpy as np
import torch
from comfy_api.latest import InputImpl, Types, io, ui

from ..safety_steering.errors import SafetySteeringError
from ..safety_steering.pictures import draw_grid, shrink
from ..safety_steering.vectors.mix import parse_mix
from .guarded_mode import is_guarded
from .sampling.sampling import Conditioning, Progress, Sampling, decode_video, sample_prompt
from .steering.apply import Steering, apply_steering, steerings_of, without_steering
from .steering.settings import varied

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import VAE

ALL_CATEGORIES = "all"
MOST_CELLS = 100
PREVIEW_WIDTH = 768
WEBP = {"lossless": False, "quality": 80, "method": 0}  # method 0: a fifth of the time for slightly larger files


@dataclass(frozen=True)
class Scene:
    """The inputs that all renderings of a comparison share. positive, negative: CONDITIONING."""

    vae: VAE
    positive: Conditioning
    negative: Conditioning
    sampling: Sampling


@dataclass(frozen=True, eq=False)
class Rendering:
    """frames: uint8 (T, H, W, 3). report: the trace's summary. found: whether any gate let a token through."""

    frames: np.ndarray
    report: str
    found: bool


def make_sampling(
    model: ModelPatcher,
    latent: Mapping[str, Any],
    seed: int,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str,
    denoise: float,
    sigmas: torch.Tensor | None = None,
) -> Sampling:
    """KSampler's widgets as a Sampling; `sigmas`, if given, replace steps, scheduler and denoise."""
    if sigmas is None and denoise < 1:
        sampler = comfy.samplers.KSampler(model, steps, model.load_device, sampler_name, scheduler, denoise)
        sigmas = sampler.sigmas
    return Sampling(latent, "", steps, cfg, sampler_name, scheduler, seed, sigmas=sigmas)


def render_both(model: ModelPatcher, scene: Scene) -> tuple[Rendering, Rendering]:
    """The scene without and with the steering that is on `model`.

    Raises:
        SafetySteeringError: there is no steering on the model.
    """
    _last_steering(model)
    models = (without_steering(model), model)
    progress = Progress(model, scene.sampling, len(models))
    unsteered, steered = (_render(one, scene, progress, number) for number, one in enumerate(models))
    return unsteered, steered


def render_grid(
    model: ModelPatcher, scene: Scene, strengths: Sequence[float], mixes: Mapping[str, Mapping[str, float]], width: int
) -> tuple[np.ndarray, list[str]]:
    """A labelled grid uint8 (T, H, W, 3) with a row for each mix and a column for each strength, and its reports.

    Only the strength and mix of the model's last steering vary; of recommended settings, the level instead of the
    strength. mixes: name -> weights. width: largest of a cell.

    Raises:
        SafetySteeringError: there is no steering on the model, or the vector lacks a category.
    """
    steering = _last_steering(model)
    mixes = mixes or {"as mixed": steering.vector.mix}
    if len(strengths) * len(mixes) > MOST_CELLS:
        raise SafetySteeringError(f"{len(strengths)} strengths and {len(mixes)} rows are more than {MOST_CELLS} cells.")
    # strength 0 is the same in every row
    settings = {(name, s) if s else ("", s): (mixes[name], s) for name in mixes for s in strengths}
    progress = Progress(model, scene.sampling, len(settings))
    made: dict[tuple[str, float], np.ndarray] = {}
    reports = []
    for number, (key, (mix, strength)) in enumerate(settings.items()):
        rendering = _render(_steered_anew(model, mix, strength), scene, progress, number)
        made[key] = shrink(rendering.frames, width)
        reports.append(f"{_caption(steering, *key)}: {rendering.report}")
    cells = [[made[(name, s) if s else ("", s)] for s in strengths] for name in mixes]
    captions = [[_caption(steering, name if s else "", s) for s in strengths] for name in mixes]
    return draw_grid(cells, captions), reports


def choose_mixes(text: str, categories: Sequence[str]) -> dict[str, dict[str, float]]:
    """The rows that a user asks for, by name: "all" is a row for each category; a part may be a mix such as
    `violence=1, sexual=0.5`; parts are separated by semicolons, plain names by commas too. Empty: no row.

    Raises:
        SafetySteeringError: a part does not read as a category or a mix.
    """
    rows: dict[str, dict[str, float]] = {}
    for part in filter(None, (piece.strip() for piece in text.split(";"))):
        if "=" in part:
            rows[part] = parse_mix(part)
            continue
        for name in filter(None, (piece.strip() for piece in part.split(","))):
            names = tuple(categories) if name == ALL_CATEGORIES and name not in categories else (name,)
            rows |= {one: {one: 1.0} for one in names}
    return rows


def parse_strengths(text: str) -> tuple[float, ...]:
    """Numbers separated by commas, each once.

    Raises:
        SafetySteeringError: there is none, or a part is not a finite number.
    """
    try:
        numbers = tuple(dict.fromkeys(float(part) for part in text.split(",") if part.strip()))
    except ValueError:
        numbers = ()
    if not numbers or not np.isfinite(numbers).all():
        raise SafetySteeringError(f"The strengths are '{text}'. Write numbers separated by commas, such as 0, 1, 2.")
    return numbers


def _steered_anew(model: ModelPatcher, mix: Mapping[str, float], strength: float) -> ModelPatcher:
    """The model with its last steering at another strength (or level) and mix."""
    *others, last = steerings_of(model)
    steered = without_steering(model)
    for other in others:
        steered = apply_steering(steered, other.vector, other.settings)
    vector = last.vector.with_mix(mix)
    return apply_steering(steered, vector, varied(vector, last.settings, strength))


def _last_steering(model: ModelPatcher) -> Steering:
    steerings = steerings_of(model)
    if not steerings:
        raise SafetySteeringError(
            "This model is not steered, so there is nothing to compare. Connect the model from Apply Safety Steering. "
            "Steering inside the text encoder alone is not compared here: run with and without the steered clip."
        )
    return steerings[-1]


def _render(model: ModelPatcher, scene: Scene, progress: Progress, number: int) -> Rendering:
    sampling = scene.sampling
    samples = sample_prompt(model, scene.positive, scene.negative, sampling, sampling.seed, progress.of_run(number))
    traces = [steering.traces[-1] for steering in steerings_of(model) if steering.traces]
    report = " ".join(trace.summary() for trace in traces) or "Not steered."
    found = any(hook.acted > 0 for trace in traces for call in trace.calls for hook in call.hooks)
    return Rendering(decode_video(scene.vae, samples), report, found)


def _caption(steering: Steering, name: str, strength: float) -> str:
    varied_by = "strength" if steering.settings.level is None else "level"
    return f"{name}, {varied_by} {strength:g}" if name else "unsteered"


def describe_difference(unsteered: np.ndarray, steered: np.ndarray, found: bool) -> str:
    """How different two sides uint8 (T, H, W, 3) are, in a sentence. found: something unsafe was found in the prompt.

    The difference is the mean absolute difference of pixels in percent of their range.
    """
    if not np.array_equal(unsteered, steered):
        share = 100 * float(np.abs(unsteered.astype(np.int16) - steered).mean()) / 255
        return f"The sides differ by {share:.1f} % of the pixels' range."
    if found:
        return (
            "Warning: the sides are identical, though something unsafe was found in this prompt. The effect is too "
            "small to be seen: raise the level or strength."
        )
    return "The sides are identical."


def to_image(frames: np.ndarray) -> torch.Tensor:
    """Frames uint8 (T, H, W, 3) as IMAGE."""
    return torch.from_numpy(frames).float().div(255)


def to_video(frames: np.ndarray, fps: float) -> Any:
    """Frames uint8 (T, H, W, 3) with even sides as VIDEO."""
    components = Types.VideoComponents(images=to_image(frames), frame_rate=Fraction(fps).limit_denominator(1000))
    return InputImpl.VideoFromComponents(components)


def preview_pair(unsteered: np.ndarray, steered: np.ndarray, fps: float) -> dict[str, Any]:
    """The ui of a comparison: `images`, one for each side, and `safety_ab`, where our slider finds its film.

    The film has the unsteered side on the left half and the steered one on the right: one clock for both. Empty on a
    guarded server: a node's previews of its own making would be seen before the output gate has judged them.
    """
    if is_guarded():
        return {}
    sides = [shrink(frames, PREVIEW_WIDTH) for frames in (unsteered, steered)]
    moves = len(unsteered) > 1
    return {
        "images": [_save_picture(frames, fps) for frames in sides],
        "animated": (moves,),
        "safety_ab": [{"film": _save_film(np.concatenate(sides, axis=2), fps) if moves else None}],
    }


def preview_frames(frames: np.ndarray, fps: float) -> dict[str, Any]:
    """The ui of one picture or video; empty on a guarded server, as `preview_pair`."""
    if is_guarded():
        return {}
    return {"images": [_save_picture(frames, fps)], "animated": (len(frames) > 1,)}


def _save_picture(frames: np.ndarray, fps: float) -> ui.SavedResult:
    """A PNG, or an animated WebP, in the folder of temporary files."""
    name, images, temporary = f"safety_steering_{uuid.uuid4().hex}", to_image(frames), io.FolderType.temp
    if len(frames) == 1:
        return ui.ImageSaveHelper.save_images(images, name, temporary, cls=None, compress_level=1)[0]
    return ui.ImageSaveHelper.save_animated_webp(images, name, temporary, cls=None, fps=fps, **WEBP)


def _save_film(frames: np.ndarray, fps: float) -> ui.SavedResult:
    """An H.264 film in the folder of temporary files; an odd last line or column is left out."""
    height, width = (side - side % 2 for side in frames.shape[1:3])
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    name = f"safety_steering_{uuid.uuid4().hex}.mp4"
    to_video(frames[:, :height, :width], fps).save_to(str(folder / name), format=Types.VideoContainer.MP4, crf=16)
    return ui.SavedResult(name, "", io.FolderType.temp)
