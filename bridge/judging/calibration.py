"""A calibration on a real model: prompts are sampled under each setting, decoded and judged.

Each verdict is written to disk at once and never made again, so that a resumed calibration ends with the same table as
one that was not stopped. Texts are encoded a shard at a time and latents decoded a few at a time: text encoder, model
and VAE change places in memory seldom, and memory does not grow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from comfy.model_management import throw_exception_if_processing_interrupted

from ...safety_steering.activations import UNSAFE, Row
from ...safety_steering.calibration.calibrate import Calibration, calibrate
from ...safety_steering.calibration.choice import Rule
from ...safety_steering.calibration.outcome import COPY_SIZE, Seen, Seens, small_copy
from ...safety_steering.calibration.report import SPLIT, result_rows, with_suggestion
from ...safety_steering.calibration.space import SearchSpace, Setting
from ...safety_steering.errors import SafetySteeringError
from ...safety_steering.evaluation.verdict_folder import Stored, VerdictFolder, pack_array, unpack_array
from ...safety_steering.files import write_result
from ...safety_steering.judges.verdict import Judge
from ...safety_steering.prompts.prompt_set import PromptSet
from ...safety_steering.vectors.vector import SafetyVector
from ..models.fingerprints import fingerprint
from ..models.model_map import patcher_shape
from ..models.vector_fit import check_fits
from ..sampling.identity import identity_of
from ..sampling.sampling import (
    Conditioning,
    Prompt,
    PromptSampler,
    Sampling,
    decode_video,
    list_prompts,
)
from ..steering.apply import apply_steering, steerings_of
from ..steering.settings import SteeringSettings

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE

DECODED_AT_ONCE = 4
Tell = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Tools:
    """The models that make and judge a video. model: unsteered."""

    model: ModelPatcher
    clip: CLIP
    vae: VAE
    judge: Judge


@dataclass(frozen=True, eq=False)
class Calibrated:
    """The calibration, its table (see `result_rows`), and the vector with the suggestion."""

    calibration: Calibration
    table: Sequence[Mapping[str, Any]]
    vector: SafetyVector


def calibrate_on(
    tools: Tools,
    vector: SafetyVector,
    prompts: PromptSet,
    sampling: Sampling,
    space: SearchSpace,
    *,
    budget: int,
    rule: Rule,
    folder: Path,
    tell: Tell = lambda text: None,
) -> Calibrated:
    """Calibrate `vector` on a model with the validation prompts of a set.

    Args:
        folder: keeps the verdicts and the table; a calibration that was stopped is resumed from it.
        budget: how many videos may be made.
        tell: called with the present setting and the number of remaining videos.

    Raises:
        SafetySteeringError: there are no validation prompts, all weights of the mix are 0, the budget is too small, or
            the folder is of another calibration.
        MismatchError: the vector is for another model.
    """
    wanted = validation_prompts(prompts)
    if not any(vector.mix.values()):
        raise SafetySteeringError("Every category of the mix has weight 0, so nothing would be steered. Raise one.")
    shape = patcher_shape(tools.model)
    check_fits(vector, tuple({name for points in space.hook_points for name in points}), shape)
    about = {
        "model": shape.name,
        "weights": fingerprint(tools.model),
        "vector": vector.sha256,
        "mix": dict(vector.mix),
        "judge": tools.judge.name,
        "sampling": identity_of(sampling),
    }
    measuring = Measuring(tools, vector, wanted, sampling, VerdictFolder.create(folder, about), budget, tell)
    calibration = calibrate(space, [prompt.row for prompt in wanted], budget, rule, measuring.measure)
    table = result_rows(calibration, "i2v" if sampling.starts_from_image else "t2v", vector.info.kind)
    write_result(folder / "calibration.json", "Calibrate Steering", [sampling.seed], table)
    return Calibrated(calibration, table, with_suggestion(vector, calibration, shape.name, tools.judge.name))


def validation_prompts(prompts: PromptSet) -> list[Prompt]:
    """The unsafe and the safe prompts of the validation split, without the negative twins.

    Raises:
        SafetySteeringError: there are none.
    """
    rows = [replace(row, negative="") for row in prompts.rows if row.split == SPLIT and (row.unsafe or row.safe)]
    if not rows:
        raise SafetySteeringError(
            "None of the prompts is in the validation split, on which settings are chosen. Raise 'validation' on Load "
            "Safety Prompts."
        )
    return list_prompts(replace(prompts, rows=tuple(rows)))


class Measuring:
    """Makes and judges the videos that a calibration needs and the folder does not have."""

    def __init__(
        self,
        tools: Tools,
        vector: SafetyVector,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        folder: VerdictFolder,
        budget: int,
        tell: Tell,
    ) -> None:
        self._tools, self._vector, self._sampling, self._folder, self._tell = tools, vector, sampling, folder, tell
        self._prompts = {prompt.row.id: prompt for prompt in prompts}
        self._sampler = PromptSampler(tools.model, tools.clip, sampling, budget)
        self._budget = budget
        self._seen = {key: _seen(stored) for key, stored in folder.verdicts.items()}

    def measure(self, stage: str, settings: Sequence[Setting], rows: Sequence[Row]) -> Seens:
        """All verdicts so far, including these settings on these rows.

        A prompt is encoded once a stage, and all its settings start from the same noise.
        """
        missing = {
            row.id: [setting for setting in settings if (setting.name, row.id) not in self._seen] for row in rows
        }
        self._sampler.done += sum(len(settings) - len(lacking) for lacking in missing.values())
        for shard in self._sampler.shards([self._prompts[row.id] for row in rows if missing[row.id]]):
            for prompt, positive in shard:
                lacking = missing[prompt.row.id]
                for first in range(0, len(lacking), DECODED_AT_ONCE):
                    self._make(stage, lacking[first : first + DECODED_AT_ONCE], prompt, positive)
        return self._seen

    def _make(self, stage: str, settings: Sequence[Setting], prompt: Prompt, positive: Conditioning) -> None:
        """Sample a prompt under a few settings, then decode and judge all of them."""
        made, row = [], prompt.row
        for setting in settings:
            remain = self._budget - self._sampler.done
            self._tell(f"{stage}: {setting.name}\n{remain} of {self._budget} videos remain at most")
            model = steered(self._tools.model, self._vector, setting)
            latent = self._sampler.sample(model, prompt, positive)
            made.append((setting, latent, acted(model)))
        for setting, latent, has_acted in made:
            throw_exception_if_processing_interrupted()
            video = decode_video(self._tools.vae, latent)
            verdict = self._tools.judge(video, prompt.text, self._sampling.starts_from_image)
            notes: dict[str, Any] = {"acted": has_acted}
            if row.label != UNSAFE:
                notes["copy"] = pack_array(small_copy(video))
            self._folder.append(setting.name, row.id, verdict, **notes)
            self._seen[setting.name, row.id] = _seen(self._folder.verdicts[setting.name, row.id])


def steered(model: ModelPatcher, vector: SafetyVector, setting: Setting) -> ModelPatcher:
    """A clone of the model, steered by a setting; the model itself at strength 0."""
    if not setting.strength:
        return model
    settings = SteeringSettings(
        setting.strength, setting.hook_points, setting.intervention, setting.window, strengths=setting.strengths
    )
    return apply_steering(model, vector, settings)


def acted(model: ModelPatcher) -> bool:
    """Whether steering was at work in the last run of a model."""
    return any(steering.traces and steering.traces[-1].succeeded for steering in steerings_of(model))


def _seen(stored: Stored) -> Seen:
    copy = stored.notes.get("copy")
    frames = None if copy is None else unpack_array(copy, np.uint8).reshape(-1, COPY_SIZE, COPY_SIZE)
    return Seen(stored.verdict, bool(stored.notes.get("acted")), frames)
