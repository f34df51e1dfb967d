"""Prompts through ComfyUI's ordinary sampling: any sampler, sigmas and guider, with noise seeded by the prompt's row.

Capture, calibration and evaluation sample through `PromptSampler`, so that all of them see the same videos.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import numpy as np
import torch
from comfy.model_management import throw_exception_if_processing_interrupted

from ...safety_steering.activations import SAFE, UNSAFE, Row
from ...safety_steering.errors import SafetySteeringError
from ...safety_steering.prompts.prompt_set import PromptRow, PromptSet
from ..models.text_encoders import literal

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE

Conditioning = list[list[Any]]
SHARD = 16  # prompts that are encoded together, so that text encoder and model need not take turns for each
# belongs to a text itself; everything else in a template's conditioning holds for every prompt
OF_THE_TEXT = ("pooled_output", "attention_mask")
# what a guider adds to the conditioning that it is given
OF_THE_GUIDER = ("cross_attn", "model_conds", "uuid")


@dataclass(frozen=True)
class Prompt:
    """One text to sample and its row: id, label, category, pair and split."""

    row: Row
    text: str


def list_prompts(prompts: PromptSet) -> list[Prompt]:
    """Every text of a prompt set in its order. A negative twin is labelled safe. A row's id has a hash of its text."""
    return [_prompt(row, side, text) for row in prompts.rows for side, text in row.prompts.items()]


def _prompt(row: PromptRow, side: str, text: str) -> Prompt:
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    label = UNSAFE if side == UNSAFE else SAFE
    return Prompt(
        Row(f"{row.id}/{side}/{digest}", label, row.category, row.id, row.split, length=len(text.split())), text
    )


def fraction(row_id: str) -> float:
    """The `token_fraction` of a row: which token is kept beside the mean, in [0, 1), a hash of the row's id."""
    return number_of(row_id) / 2**63


@dataclass(frozen=True)
class Sampling:
    """How each prompt is sampled.

    latent: an empty or partly fixed latent, as KSampler takes it; its first sample is used.
    template: conditioning whose extras (start image, frame rate, guidance) every prompt takes; None: the guider's
        positive one, if there is a guider.
    sampler, sigmas: SAMPLER and SIGMAS in place of `sampler_name`, and of `steps` and `scheduler`.
    guider: GUIDER in place of `cfg` and `negative`. Its way of guidance and its other prompts are taken; its positive
        prompt gives way to each prompt, and its model to the model that is sampled.
    """

    latent: Mapping[str, Any]
    negative: str
    steps: int
    cfg: float
    sampler_name: str
    scheduler: str
    seed: int
    template: Conditioning | None = None
    sampler: Any = None
    sigmas: torch.Tensor | None = None
    guider: Any = None

    @property
    def extras(self) -> dict[str, Any]:
        """What every prompt's conditioning takes beside its text."""
        if self.template:
            about, others = self.template[0][1], OF_THE_TEXT
        else:
            positive = self.guider.original_conds.get("positive") if self.guider is not None else None
            about, others = (positive[0] if positive else {}), OF_THE_TEXT + OF_THE_GUIDER
        return {key: value for key, value in about.items() if key not in others}

    @property
    def starts_from_image(self) -> bool:
        """Whether the first frame is given, so that a judge should look at those after it."""
        mask = self.latent.get("noise_mask")
        if mask is not None:
            mask = mask.unbind()[0] if getattr(mask, "is_nested", False) else mask
            if mask.ndim == 5 and mask.shape[2] > 1 and not bool(mask[:, :, 0].any()):
                return True
        return "concat_latent_image" in self.extras


def encode_prompt(clip: CLIP, text: str, template: Conditioning | None) -> Conditioning:
    """What CLIP Text Encode gives, on the CPU, with the template's extras."""
    extras = {key: value for key, value in template[0][1].items() if key not in OF_THE_TEXT} if template else {}
    encoded = clip.encode_from_tokens_scheduled(clip.tokenize(text))
    return [[states, {**about, **extras}] for states, about in encoded]


def sampling_sigmas(model: ModelPatcher, sampling: Sampling) -> torch.Tensor:
    """The noise levels (steps + 1,) of a run, highest first.

    Raises:
        SafetySteeringError: SIGMAS were given that do not fall.
    """
    if sampling.sigmas is None:
        # some samplers by name take a schedule of their own; BasicScheduler, which goes with SAMPLER, does not
        names = ("euler" if sampling.sampler is not None else sampling.sampler_name, sampling.scheduler)
        schedule: torch.Tensor = comfy.samplers.KSampler(model, sampling.steps, model.load_device, *names, 1.0).sigmas
        return schedule
    sigmas = sampling.sigmas
    if len(sigmas) < 2 or not bool((sigmas[1:] < sigmas[:-1]).all()):
        raise SafetySteeringError(
            f"The sigmas are {_listing(sigmas)}; a run from noise to a picture needs two or more that fall. "
            "Connect what BasicScheduler gives."
        )
    return sigmas


def _listing(sigmas: torch.Tensor) -> str:
    shown = [f"{sigma:.3g}" for sigma in sigmas[:4].tolist()]
    return ", ".join(shown + ["..."] * (len(sigmas) > 4)) or "none"


def sample_prompt(
    model: ModelPatcher,
    positive: Conditioning,
    negative: Conditioning,
    sampling: Sampling,
    seed: int,
    callback: Callable[..., None] | None = None,
) -> Any:
    """The final latent (1, C, ...) of one prompt, as KSampler or SamplerCustomAdvanced make it.

    positive, negative: from `encode_prompt`; the negative one is not used under a guider. A NestedTensor where the
    model makes sound too.

    Raises:
        SafetySteeringError: the guider is for another model, or as `sampling_sigmas`.
    """
    sigmas = sampling_sigmas(model, sampling)
    latent = sampling.latent["samples"][:1]
    ratios = (sampling.latent.get(f"downscale_ratio_{kind}") for kind in ("spacial", "temporal"))
    latent = comfy.sample.fix_empty_latent_channels(model, latent, *ratios)
    samples = _guider(model, positive, negative, sampling).sample(
        comfy.sample.prepare_noise(latent, seed),
        latent,
        sampling.sampler or comfy.samplers.sampler_object(sampling.sampler_name),
        sigmas,
        denoise_mask=sampling.latent.get("noise_mask"),
        callback=callback,
        disable_pbar=True,
        seed=seed,
    )
    return samples.to(
        device=comfy.model_management.intermediate_device(), dtype=comfy.model_management.intermediate_dtype()
    )


def _guider(model: ModelPatcher, positive: Conditioning, negative: Conditioning, sampling: Sampling) -> Any:
    """A guider of this one run: the given one with another model and prompt, or the one that KSampler makes."""
    if sampling.guider is None:
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(positive, negative)
        guider.set_cfg(sampling.cfg)
        return guider
    guider = copy.copy(sampling.guider)
    if not guider.model_patcher.is_clone(model):
        raise SafetySteeringError(
            "The guider is for another model than the one that is connected. Connect the same model to both."
        )
    guider.model_patcher, guider.model_options = model, model.model_options
    guider.original_conds = dict(guider.original_conds)
    if not sampling.template:
        positive = [[states, {**sampling.extras, **about}] for states, about in positive]
    guider.inner_set_conds({"positive": positive})
    return guider


def decode_video(vae: VAE, samples: Any) -> np.ndarray:
    """The frames uint8 (T, H, W, 3) of a latent that `sample_prompt` gave; an image is one frame."""
    latent = samples.unbind()[0] if getattr(samples, "is_nested", False) else samples
    images = vae.decode(latent)
    frames = images.reshape(-1, *images.shape[-3:])
    return (frames.float().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def noise_seed(seed: int, row: Row) -> int:
    """The seed of a row's noise. Twins share it, so that what differs between them is the prompt."""
    return (seed + number_of(row.pair)) % 2**63


def number_of(text: str) -> int:
    """A number in [0, 2^63) drawn from a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


class Progress:
    """One progress bar over the steps of several runs, with a preview of the present one. runs: at most so many."""

    def __init__(self, model: ModelPatcher, sampling: Sampling, runs: int) -> None:
        self._steps = len(sampling_sigmas(model, sampling)) - 1
        self._total = runs * self._steps
        self._bar = comfy.utils.ProgressBar(self._total)
        self._previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)

    def of_run(self, number: int) -> Callable[..., None]:
        """The sampler's callback for the run of this number, from 0."""

        def callback(step: int, x0: Any, x: Any, steps: int) -> None:
            throw_exception_if_processing_interrupted()
            preview = None
            if self._previewer:
                latent = x0.tensors[0] if x0.is_nested else x0
                preview = self._previewer.decode_latent_to_preview_image("JPEG", latent)
            done = number * self._steps + min(step + 1, self._steps)
            self._bar.update_absolute(min(done, self._total), self._total, preview)

        return callback


class PromptSampler:
    """Samples many prompts alike, with one progress bar.

    runs: at most so many. done: how many of them are over; a caller that goes on adds those that it need not make.
    """

    def __init__(self, model: ModelPatcher, clip: CLIP, sampling: Sampling, runs: int) -> None:
        self._clip, self._sampling, self.done = clip, sampling, 0
        self._negative = encode_prompt(clip, sampling.negative, sampling.template)
        self._progress = Progress(model, sampling, runs)

    @property
    def text_width(self) -> int:
        """Channels of the text states that the encoder gives."""
        return int(self._negative[0][0].shape[-1])

    def shards(self, prompts: Sequence[Prompt]) -> Iterator[list[tuple[Prompt, Conditioning]]]:
        """The prompts with their conditioning, `SHARD` at a time; what is in memory does not grow with their number."""
        for start in range(0, len(prompts), SHARD):
            shard = []
            for prompt in prompts[start : start + SHARD]:
                throw_exception_if_processing_interrupted()
                shard.append((prompt, encode_prompt(self._clip, literal(prompt.text), self._sampling.template)))
            yield shard

    def sample(self, model: ModelPatcher, prompt: Prompt, positive: Conditioning) -> Any:
        """The latent of one run, as `sample_prompt` gives it. model: the one of the bar, or a clone of it."""
        seed = noise_seed(self._sampling.seed, prompt.row)
        callback = self._progress.of_run(self.done)
        latent = sample_prompt(model, positive, self._negative, self._sampling, seed, callback)
        self.done += 1
        return latent
