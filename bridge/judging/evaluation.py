"""An evaluation over a prompt set: each prompt is sampled unsteered and steered with the same noise, and judged.

Only verdicts are kept, in a folder from which a stopped evaluation is resumed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfy.model_management import load_models_gpu, throw_exception_if_processing_interrupted

from ...safety_steering.activations import UNSAFE as UNSAFE_PROMPT
from ...safety_steering.errors import NotSteeredError, SafetySteeringError
from ...safety_steering.evaluation.rates import BENIGN, STEERED, UNSAFE, UNSTEERED, Case, EvaluationInfo
from ...safety_steering.evaluation.verdict_folder import VerdictFolder
from ...safety_steering.judges.verdict import Judge
from ...safety_steering.prompts.prompt_set import PromptSet
from ..models.fingerprints import fingerprint
from ..sampling.identity import identity_of
from ..sampling.sampling import (
    Conditioning,
    Prompt,
    PromptSampler,
    Sampling,
    decode_video,
    list_prompts,
)
from ..steering.apply import Steering, steerings_of

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE

SIDES = ("unsafe", "safe")
SECONDS = "seconds"


@dataclass(frozen=True, eq=False)
class Pair:
    """A model unsteered and steered.

    Raises:
        SafetySteeringError: on construction, if they are two models, or steering is missing or on both.
    """

    plain: ModelPatcher
    steered: ModelPatcher

    def __post_init__(self) -> None:
        if steerings_of(self.plain):
            raise SafetySteeringError(
                "The model that should be unsteered has Apply Safety Steering on it. Connect the loader's model."
            )
        if not steerings_of(self.steered):
            raise SafetySteeringError(
                "The steered model has no Apply Safety Steering on it, so there is nothing to compare. Connect the "
                "output of Apply Safety Steering."
            )
        if not self.plain.is_clone(self.steered):
            raise SafetySteeringError("The two models are different ones. Steer the same model that is left plain.")

    @property
    def by_setting(self) -> dict[str, ModelPatcher]:
        """Setting -> model; unsteered first, so that the warm-up does not count as the cost of steering."""
        return {UNSTEERED: self.plain, STEERED: self.steered}


def evaluate_prompts(
    models: Pair, clip: CLIP, vae: VAE, prompts: PromptSet, sampling: Sampling, judge: Judge, folder: Path
) -> list[Case]:
    """Sample and judge what the folder does not have; returns a case for each prompt, in the prompt set's order.

    Raises:
        NotSteeredError: steering did not act on a prompt.
        SafetySteeringError: the folder is of another evaluation, or there is no unsafe prompt.
    """
    wanted = [prompt for prompt in list_prompts(prompts) if prompt.row.id.split("/")[-2] in SIDES]
    if not any(prompt.row.label == UNSAFE_PROMPT for prompt in wanted):
        raise SafetySteeringError("These prompts have no unsafe one among them. Load pairs, or another split.")
    kept = VerdictFolder.create(folder, _about(models, sampling, judge))
    missing = [
        prompt for prompt in wanted if any((name, prompt.row.id) not in kept.verdicts for name in models.by_setting)
    ]
    sampler = PromptSampler(models.plain, clip, sampling, len(models.by_setting) * len(wanted))
    sampler.done = len(models.by_setting) * (len(wanted) - len(missing))
    for shard in sampler.shards(missing):
        for prompt, positive in shard:
            for name, (latent, seconds) in _sample(models, sampler, prompt, positive).items():
                throw_exception_if_processing_interrupted()
                video = decode_video(vae, latent)
                verdict = judge(video, prompt=prompt.text, skip_start=sampling.starts_from_image)
                kept.append(name, prompt.row.id, verdict, **{SECONDS: seconds})
    return [_case(prompt, kept) for prompt in wanted]


def describe_steering(models: Pair, sampling: Sampling, prompts: PromptSet, judge: Judge) -> EvaluationInfo:
    """What the rows of an evaluation say beside the rates: the steering and how it was sampled."""
    steerings = steerings_of(models.steered)
    splits = {row.split for row in prompts.rows}
    return EvaluationInfo(
        task="i2v" if sampling.starts_from_image else "t2v",
        direction=_joined([steering.vector.info.kind for steering in steerings]),
        hook_point=_joined([", ".join(steering.settings.hook_points) for steering in steerings]),
        intervention=_joined([_intervention(steering) for steering in steerings]),
        strength=steerings[0].settings.strength if len(steerings) == 1 else None,
        judge=judge.name,
        split=next(iter(splits)) if len(splits) == 1 else "several",
        settings={"steering": [_settings(steering) for steering in steerings], "sampling": identity_of(sampling)},
    )


def _sample(
    models: Pair, sampler: PromptSampler, prompt: Prompt, positive: Conditioning
) -> dict[str, tuple[Any, float]]:
    """Setting -> latent and seconds of one prompt."""
    made = {}
    for name, model in models.by_setting.items():
        load_models_gpu([model])  # before the clock starts
        started = time.perf_counter()
        latent = sampler.sample(model, prompt, positive)
        made[name] = latent, time.perf_counter() - started
    _check_acted(models.steered)
    return made


def _check_acted(steered: ModelPatcher) -> None:
    """Raise if steering did not act. A failed run raises by itself; strength 0 or an empty window does not."""
    for steering in steerings_of(steered):
        trace = steering.traces[-1]
        if not trace.succeeded:
            raise NotSteeredError(f"The evaluation was stopped. {trace.summary()}")


def _case(prompt: Prompt, kept: VerdictFolder) -> Case:
    stored = [kept.verdicts[name, prompt.row.id] for name in (UNSTEERED, STEERED)]
    plain, steered = (float(one.notes[SECONDS]) for one in stored)
    label = UNSAFE if prompt.row.label == UNSAFE_PROMPT else BENIGN
    row = prompt.row
    return Case(row.id, row.category, label, stored[0].verdict, stored[1].verdict, (plain, steered))


def _about(models: Pair, sampling: Sampling, judge: Judge) -> dict[str, Any]:
    """What must be equal to resume an evaluation. More prompts may be added to a folder."""
    return {
        "model": fingerprint(models.plain),
        "steering": [_settings(steering) for steering in steerings_of(models.steered)],
        "sampling": identity_of(sampling),
        "judge": judge.name,
    }


def _settings(steering: Steering) -> dict[str, Any]:
    vector = steering.vector
    return {**steering.described, "vector": vector.sha256}


def _intervention(steering: Steering) -> str:
    how, (start, end) = steering.settings.intervention, steering.settings.window
    gate = f", {how.gate_in_words}" if how.gate_in_words else ""
    return f"{how.kind}, norm {how.norm}{gate}, window {start:g} to {end:g}, {steering.settings.branch} branch"


def _joined(parts: Sequence[str]) -> str:
    return " + ".join(dict.fromkeys(parts))
