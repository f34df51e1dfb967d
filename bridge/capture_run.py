"""A capture over a prompt set: each prompt is sampled the ordinary way, and its states go into the activation folder.

Prompts are sampled one by one. A prompt's noise and the token that is kept of it depend on the seed and its own id
only, so that a capture that was killed and one that was not end with the same bits. Texts are encoded a shard at a
time: encoder and model need not take turns in memory for every prompt, and what is in memory does not grow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from comfy.model_management import throw_exception_if_processing_interrupted

from ..safety_steering.activations import SAFE, UNSAFE, Activations, Row, States
from ..safety_steering.errors import SafetySteeringError
from ..safety_steering.hook_point import depth, parse_hook_point, select_hook_points
from ..safety_steering.prompts import PromptRow, PromptSet
from .capture import Capture, capture_source
from .model_map import Shape, is_block, model_hook_points, read_shape

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP

SHARD = 16
# what belongs to a text itself; everything else in a template's conditioning holds for every prompt
OF_THE_TEXT = ("pooled_output", "attention_mask")
Conditioning = list[list[Any]]


@dataclass(frozen=True)
class Sampling:
    """How each prompt is sampled. template: conditioning whose extras (start image, frame rate, guidance) every prompt
    takes, or None."""

    latent: Mapping[str, Any]
    negative: str
    steps: int
    cfg: float
    sampler_name: str
    scheduler: str
    seed: int
    template: Conditioning | None = None


@dataclass(frozen=True)
class Prompt:
    """One text to sample, and the row that it becomes."""

    row: Row
    text: str


def capture_prompts(
    model: ModelPatcher, clip: CLIP, prompts: PromptSet, sampling: Sampling, hook_points: str, bins: int, folder: Path
) -> Activations:
    """Capture what the folder does not have yet, shard by shard; returns the folder, complete.

    hook_points: see `choose_hook_points`. bins: how many sigma bins; the steps are shared among them evenly.

    Raises:
        SafetySteeringError: a choice is not possible, or the folder holds a capture of something else.
    """
    shape = read_shape(model.model.diffusion_model)
    edges = sigma_edges(model, sampling, bins)
    wanted = list_prompts(prompts)
    negative = _encode(clip, sampling.negative, sampling.template)
    places = choose_hook_points(hook_points, shape)
    source = replace(capture_source(model, places, edges, negative[0][0].shape[-1]), sampling=_described(sampling))
    activations = Activations.create(folder, source)
    present = {row.id for row in activations.rows()}
    capture = Capture(source)
    captured = capture.attach(model)
    progress = _Progress(model, len(wanted), sampling.steps)
    for start in range(0, len(wanted), SHARD):
        part = wanted[start : start + SHARD]
        shard = [prompt for prompt in part if prompt.row.id not in present]
        texts = []
        for prompt in shard:
            throw_exception_if_processing_interrupted()
            texts.append(_encode(clip, prompt.text, sampling.template))
        states = []
        for number, (prompt, positive) in enumerate(zip(shard, texts, strict=True)):
            capture.places = [fraction(prompt.row.id)]
            callback = progress.of_prompt(start + len(part) - len(shard) + number)
            _sample(captured, positive, negative, sampling, noise_seed(sampling.seed, prompt.row), callback)
            states.append(_whole(capture.states, source.hook_points))
        if shard:
            activations.append([prompt.row for prompt in shard], _joined(states))
    return activations


def _described(sampling: Sampling) -> dict[str, Any]:
    """What has to be the same when a capture goes on."""
    names = ("negative", "steps", "cfg", "sampler_name", "scheduler", "seed")
    return {name: getattr(sampling, name) for name in names} | {"latent": list(sampling.latent["samples"].shape[1:])}


def list_prompts(prompts: PromptSet) -> list[Prompt]:
    """Every text of a prompt set in its order; a negative twin is a safe one. A changed text has another id."""
    return [_prompt(row, side, text) for row in prompts.rows for side, text in row.prompts.items()]


def _prompt(row: PromptRow, side: str, text: str) -> Prompt:
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    label = UNSAFE if side == UNSAFE else SAFE
    return Prompt(
        Row(f"{row.id}/{side}/{digest}", label, row.category, row.id, row.split, length=len(text.split())), text
    )


def choose_hook_points(text: str, shape: Shape) -> tuple[str, ...]:
    """The hook points of a model that a user means: "all", names, depths such as 0.5, ranges such as 0.25-0.75.

    A range means the image streams between two depths.

    Raises:
        MismatchError: the model has no such place.
    """
    blocks = model_hook_points(shape)
    states = tuple(name for name in ("conditioning",) if name in shape.family.states)
    parts: list[str] = []
    for part in text.split(","):
        ends = part.strip().split("-")
        parts += _between(ends, blocks, shape) if len(ends) == 2 else [part]
    return select_hook_points(",".join(parts), states + blocks, shape.block_counts)


def _between(ends: Sequence[str], blocks: Sequence[str], shape: Shape) -> list[str]:
    try:
        low, high = map(float, ends)
    except ValueError:
        low, high = 1.0, 0.0
    inside = [
        name
        for name in blocks
        if (point := parse_hook_point(name)).list in shape.block_counts
        and point.stream == "image"
        and low <= depth(point, shape.block_counts) <= high
    ]
    if not inside:
        raise SafetySteeringError(
            f"'{'-'.join(ends)}' is no range of depths with a block in it. "
            "Write one between 0 and 1, such as 0.25-0.75."
        )
    return inside


def sigma_edges(model: ModelPatcher, sampling: Sampling, bins: int) -> tuple[float, ...]:
    """K + 1 ascending edges that share the steps of this sampling evenly among K sigma bins.

    Raises:
        SafetySteeringError: there are more bins than steps.
    """
    sampler = comfy.samplers.KSampler(
        model, sampling.steps, model.load_device, sampling.sampler_name, sampling.scheduler, 1.0
    )
    sigmas = sampler.sigmas.tolist()
    calls = len(sigmas) - 1
    if not 1 <= bins <= calls:
        raise SafetySteeringError(f"{bins} sigma bins cannot share {calls} steps. Use fewer bins or more steps.")
    cuts = [round(number * calls / bins) for number in range(1, bins)]
    inner = [(sigmas[cut - 1] + sigmas[cut]) / 2 for cut in cuts]
    return (0.0, *reversed(inner), sigmas[0])


def noise_seed(seed: int, row: Row) -> int:
    """The seed of a row's noise. Twins share it, so that what differs between them is the prompt."""
    return (seed + _number(row.pair)) % 2**63


def fraction(row_id: str) -> float:
    """Which of a prompt's tokens is kept beside the mean, in [0, 1), drawn from its id."""
    return _number(row_id) / 2**63


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def _encode(clip: CLIP, text: str, template: Conditioning | None) -> Conditioning:
    """What CLIP Text Encode gives, on the CPU, with the template's extras."""
    extras = {key: value for key, value in template[0][1].items() if key not in OF_THE_TEXT} if template else {}
    encoded = clip.encode_from_tokens_scheduled(clip.tokenize(text))
    return [[states, {**about, **extras}] for states, about in encoded]


def _sample(
    model: ModelPatcher,
    positive: Conditioning,
    negative: Conditioning,
    sampling: Sampling,
    seed: int,
    callback: Callable[..., None],
) -> None:
    """What KSampler does with an empty or partly fixed latent, one sample of it."""
    latent = sampling.latent["samples"][:1]
    ratios = (sampling.latent.get(f"downscale_ratio_{kind}") for kind in ("spacial", "temporal"))
    latent = comfy.sample.fix_empty_latent_channels(model, latent, *ratios)
    comfy.sample.sample(
        model,
        comfy.sample.prepare_noise(latent, seed),
        sampling.steps,
        sampling.cfg,
        sampling.sampler_name,
        sampling.scheduler,
        positive,
        negative,
        latent,
        noise_mask=sampling.latent.get("noise_mask"),
        callback=callback,
        disable_pbar=True,
        seed=seed,
    )


def _whole(states: Mapping[str, States], hook_points: Mapping[str, Any]) -> Mapping[str, States]:
    missing = [name for name in hook_points if name not in states]
    if missing:
        kind = "block" if is_block(missing[0]) else "argument"
        raise SafetySteeringError(
            f"The model ran, but nothing came by at {missing[0]}: another node answers in this {kind}'s place. "
            "Remove it, or capture at other hook points."
        )
    return states


def _joined(states: Sequence[Mapping[str, States]]) -> dict[str, States]:
    return {
        name: States(*(torch.cat([getattr(one[name], kind) for one in states]) for kind in ("pooled", "token")))
        for name in states[0]
    }


class _Progress:
    """One bar over all steps of all prompts, with the picture that is becoming."""

    def __init__(self, model: ModelPatcher, prompts: int, steps: int) -> None:
        self._bar = comfy.utils.ProgressBar(prompts * steps)
        self._previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)
        self._steps, self._total = steps, prompts * steps

    def of_prompt(self, number: int) -> Callable[..., None]:
        """The sampler's callback for the prompt of this number."""

        def callback(step: int, x0: Any, x: Any, steps: int) -> None:
            throw_exception_if_processing_interrupted()
            preview = None
            if self._previewer:
                latent = x0.tensors[0] if x0.is_nested else x0
                preview = self._previewer.decode_latent_to_preview_image("JPEG", latent)
            self._bar.update_absolute(number * self._steps + step + 1, self._total, preview)

        return callback
