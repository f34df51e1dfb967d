"""A capture over a prompt set: each prompt is sampled as usual, and its states go into the activation folder.

Prompts are sampled one by one. A prompt's noise and its kept token depend on the seed and the prompt's id alone, so a
capture that was killed and resumed ends with the same bits. Texts are encoded, and videos decoded for a judge, a shard
at a time: encoder, model and VAE need not be loaded for every prompt, and memory does not grow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfy.model_management import throw_exception_if_processing_interrupted

from ...safety_steering.activations import DISPUTED, SAFE, UNSAFE, Activations, Row, States, joined
from ...safety_steering.errors import SafetySteeringError
from ...safety_steering.judges.verdict import Judge
from ...safety_steering.prompts.prompt_set import PromptSet
from ..models.model_map import patcher_shape
from ..sampling.identity import identity_of
from ..sampling.sampling import (
    PromptSampler,
    Sampling,
    decode_video,
    fraction,
    list_prompts,
    sampling_sigmas,
)
from .collect import Capture, capture_source
from .hook_points import MEAN, PER_FRAME, TEXT_TOKENS, choose_hook_points

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE

PROMPT, JUDGE, AGREE = "prompt", "judge", "agree"
RULES = (PROMPT, JUDGE, AGREE)
POOLED_AS = {
    MEAN: "mean over editable tokens",
    PER_FRAME: "mean over the editable tokens of each frame",
    TEXT_TOKENS: "mean over the text tokens",
}


@dataclass(frozen=True)
class Labels:
    """Which rows are unsafe: by the prompt, by a judge who sees the generated video, or where both agree.

    REINS labels what was generated, because an unsafe prompt need not give an unsafe video. Under "agree" the rows on
    which prompt and judge differ are kept, so that a capture can resume, and marked "disputed". No fit reads those.
    judge, vae: needed by every rule but "prompt".

    Raises:
        SafetySteeringError: the rule is none of RULES, or judge or VAE is missing.
    """

    rule: str = PROMPT
    judge: Judge | None = None
    vae: VAE | None = None

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise SafetySteeringError(f"The labels are '{self.rule}', expected one of {', '.join(RULES)}.")
        missing = [name for name in ("judge", "vae") if getattr(self, name) is None]
        if self.rule != PROMPT and missing:
            raise SafetySteeringError(
                f"With labels '{self.rule}' every video is shown to a judge, but {' and '.join(missing)} is not "
                "connected. Connect Safety Judge and the model's VAE, or take the labels from the prompt."
            )

    @property
    def look(self) -> bool:
        """Whether a judge sees the videos."""
        return self.rule != PROMPT

    @property
    def identity(self) -> dict[str, Any]:
        """What has to be the same when a capture resumes."""
        return {"labels": self.rule, "judge": self.judge.name} if self.look and self.judge else {"labels": self.rule}

    def labelled(self, row: Row, text: str, video: Any, skip_start: bool) -> Row:
        """`row`, which has its prompt's label, with the label that this rule gives its video (latents)."""
        if self.rule == PROMPT or self.judge is None or self.vae is None:
            return row
        throw_exception_if_processing_interrupted()
        verdict = self.judge(decode_video(self.vae, video), prompt=text, skip_start=skip_start)
        seen = UNSAFE if verdict.unsafe else SAFE
        return replace(row, label=seen if self.rule == JUDGE or seen == row.label else DISPUTED)


BY_PROMPT = Labels()


def capture_prompts(
    model: ModelPatcher,
    clip: CLIP,
    prompts: PromptSet,
    sampling: Sampling,
    hook_points: str,
    bins: int,
    folder: Path,
    *,
    branch: str = "positive",
    pooling: str = MEAN,
    labels: Labels = BY_PROMPT,
) -> Activations:
    """Capture the prompts that the folder does not have yet, shard by shard.

    Args:
        hook_points, pooling: see `choose_hook_points`. Per frame, each latent frame of a video is a row.
        bins: number of sigma bins. The steps are shared among them evenly.
        branch: the side of guidance that is read.

    Returns:
        The folder, complete.

    Raises:
        SafetySteeringError: a choice is not possible, or the folder holds another capture.
    """
    shape = patcher_shape(model)
    edges = sigma_edges(model, sampling, bins)
    wanted = list_prompts(prompts)
    names = choose_hook_points(hook_points, shape, pooling)
    sampler = PromptSampler(model, clip, sampling, len(wanted))
    source = replace(
        capture_source(model, names, edges, sampler.text_width),
        branch=branch,
        pooling=POOLED_AS[pooling],
        sampling={**identity_of(sampling), **labels.identity},
    )
    activations = Activations.create(folder, source)
    present = {row.video or row.id for row in activations.rows()}
    capture = Capture(source, branch, by_frame=pooling == PER_FRAME)
    captured = capture.attach(model)
    missing = [prompt for prompt in wanted if prompt.row.id not in present]
    sampler.done = len(wanted) - len(missing)
    for shard in sampler.shards(missing):
        states, videos = [], []
        for prompt, positive in shard:
            capture.token_fractions = [fraction(prompt.row.id)]
            capture.token_pairs = [prompt.row.pair or prompt.row.id]
            video = sampler.sample(captured, prompt, positive)
            videos.append(video if labels.look else None)
            states.append(_whole(capture.states, source))
        rows = []
        for (prompt, _), video, one in zip(shard, videos, states, strict=True):
            row = labels.labelled(prompt.row, prompt.text, video, sampling.starts_from_image)
            rows += _frames(row, one, pooling)
        activations.append(rows, _joined(states))
    return activations


def sigma_edges(model: ModelPatcher, sampling: Sampling, bins: int) -> tuple[float, ...]:
    """K + 1 ascending edges that share the steps of this sampling evenly among K sigma bins.

    Raises:
        SafetySteeringError: there are more bins than steps, or as `sampling_sigmas`.
    """
    sigmas = sampling_sigmas(model, sampling).tolist()
    calls = len(sigmas) - 1
    if not 1 <= bins <= calls:
        raise SafetySteeringError(f"{bins} sigma bins cannot share {calls} steps. Use fewer bins or more steps.")
    cuts = [round(number * calls / bins) for number in range(1, bins)]
    inner = [(sigmas[cut - 1] + sigmas[cut]) / 2 for cut in cuts]
    return (0.0, *reversed(inner), sigmas[0])


def _whole(states: Mapping[str, States], source: Any) -> Mapping[str, States]:
    missing = [name for name in source.hook_points if name not in states]
    if missing and not states and source.branch == "negative":
        raise SafetySteeringError(
            "The model was never called for the negative branch: at cfg 1, and under a guider without a negative "
            "prompt, there is none. Raise cfg, or choose the branch 'positive'."
        )
    if missing:
        kind = "block" if missing[0].in_blocks else "argument"
        raise SafetySteeringError(
            f"The model ran, but no state was seen at {missing[0]}: another node replaces this {kind}. "
            "Remove that node, or capture at other hook points."
        )
    return states


def _frames(row: Row, states: Mapping[str, States], pooling: str) -> list[Row]:
    """The rows of one video: itself, or one a frame."""
    if pooling != PER_FRAME:
        return [row]
    count = len(next(iter(states.values())).pooled)
    return [replace(row, id=f"{row.id}/frame{frame}", video=row.id) for frame in range(count)]


def _joined(states: Sequence[Mapping[str, States]]) -> dict[str, States]:
    return {name: joined([one[name] for one in states]) for name in states[0]}
