"""Fitting an alignment: the check of the anchors, the maps of both spaces' states, and the quality of the fit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..errors import SafetySteeringError
from ..hook_point import HookPoint
from ..language_models.words import Words, pair_words
from ..linear_algebra import channel_scales
from ..vectors.vector import SafetyVector
from .alignment import Alignment, AnchorStates, Side
from .anchors import coverage, pooled_directions, refuse_unsafe, refuse_unsafe_words
from .linear import fit_orthogonal, fit_reduced_rank, fit_ridge
from .maps import MIN_ANCHORS, AlignmentSettings, SpaceMap
from .mlp import fit_mlp
from .quality import judge
from .words import MIN_WORDS, PairedWords, fit_words


@dataclass(frozen=True, eq=False)
class TargetStates:
    """The anchors' states in a target and the target itself. notes: sentences for people.

    benign: as `Alignment.own_benign`. words: of the anchors, None where they cannot be told apart. tokens: (m, D_t), of
    benign prompts if there are some, else of the anchors.
    """

    states: AnchorStates
    side: Side
    notes: tuple[str, ...] = ()
    benign: AnchorStates | None = None
    words: Words | None = None
    tokens: torch.Tensor | None = None


def fit_checked(
    vector: SafetyVector,
    source: torch.Tensor,
    texts: Sequence[str],
    read_target: Callable[[], TargetStates],
    settings: AlignmentSettings,
    *,
    words: Words | None = None,
    tick: Callable[[], None] = lambda: None,
) -> Alignment:
    """Check the anchors, read the target, fit, and note which share of the vector's directions the anchors cover.

    Args:
        vector: the source vector, which tells unsafe anchors (`refuse_unsafe`).
        source: the anchors' states (n, D_s) at the vector's hook point.
        texts: the n anchors.
        read_target: gives the anchors' states in the target. It is called only if no anchor is unsafe.
        words: the anchors' words in the source; None if it has none.
        tick: as of `fit_alignment`.

    Raises:
        SafetySteeringError: an anchor is unsafe, or as `fit_alignment`.
    """
    hook_point = source_hook_point(vector)
    point = vector.at(hook_point)
    refuse_unsafe(vector, hook_point, source, texts)
    if words is not None:
        refuse_unsafe_words(vector, hook_point, words, texts)
    target = read_target()
    alignment = fit_alignment(
        source,
        target.states,
        settings,
        source_side=Side(hook_point, point.space, name=vector.info.model_name),
        target_side=target.side,
        texts=texts,
        benign=target.benign,
        tick=tick,
    )
    penalty = alignment.map.chosen.get("penalty", 0.0)
    covered = coverage(pooled_directions(vector, hook_point), source, alignment.source_scale, penalty)
    notes = list(target.notes)
    if words is not None and target.tokens is not None and target.words is not None:
        own, other = pair_words(words, target.words)
        if len(own) >= MIN_WORDS:
            paired = PairedWords(words.states[own], target.words.states[other], words.texts[own])
            captions = source, target.states.pooled
            fitted = fit_words(paired, captions, target.tokens, settings, lambda x, y, how: fit_map(x, y, how, tick))
            alignment = replace(alignment, words=fitted)
    if words is not None and alignment.words is None:
        notes.append(NO_WORDS)
    return replace(alignment, about={"notes": notes, "coverage": covered})


NO_WORDS = (
    "Aligned by whole captions, not by words: this target does not show which tokens a word is made of. The vector "
    "acts less exactly."
)


def source_hook_point(vector: SafetyVector) -> HookPoint:
    """The hook point in the language model that a source vector belongs to."""
    return vector.anchors.hook_point if vector.anchors else next(iter(vector.hook_points))


def fit_alignment(
    source: torch.Tensor,
    target: torch.Tensor | AnchorStates,
    method: str | AlignmentSettings = "ridge",
    *,
    source_side: Side | None = None,
    target_side: Side | None = None,
    texts: Sequence[str] = (),
    about: Mapping[str, Any] | None = None,
    benign: AnchorStates | None = None,
    tick: Callable[[], None] = lambda: None,
) -> Alignment:
    """Fit the map from `source` (n, D_s) to `target` (n, D_t); row i of both is the same benign anchor.

    The quality is that of a fit without the held-out anchors; the map returned is fitted on all of them.

    Args:
        target: pooled states, or `AnchorStates`. Without token states their spread is taken to be the pooled states'.
        method: a name, or the settings.
        texts: the anchors, only for their hash.
        benign: as `Alignment.own_benign`. The fit does not use them.
        tick: called now and then; what it raises ends the fit.

    Raises:
        SafetySteeringError: too few anchors, numbers of rows that differ, or states that are not finite.

    Example:
        >>> import torch
        >>> from safety_steering import fit_alignment
        >>> source = torch.randn(200, 8)  # a language model's states of 200 harmless captions
        >>> target = source @ torch.randn(8, 12)  # your model's states of the same captions
        >>> alignment = fit_alignment(source, target)
        >>> alignment.quality.r2 > 0.99
        True
    """
    settings = AlignmentSettings(method) if isinstance(method, str) else method
    states = target if isinstance(target, AnchorStates) else AnchorStates(target, target)
    states = AnchorStates(states.pooled.float(), states.token.float())
    _check_rows(source, states)
    held, kept = _held_out(len(source), settings)
    x, y = _Standardised.of(source, kept), _Standardised.of(states.pooled, kept)
    judged = fit_map(x.rows[kept], y.rows[kept], settings, tick)
    quality = judge(judged(x.rows[held]), y.rows[held], len(kept))
    every = torch.arange(len(source))
    x, y = _Standardised.of(source, every), _Standardised.of(states.pooled, every)
    return Alignment(
        source=source_side or Side(HookPoint("source.0"), "source"),
        target=target_side or Side(HookPoint("conditioning"), "target"),
        settings=settings,
        map=fit_map(x.rows, y.rows, settings, tick),
        source_mean=x.mean.float(),
        source_scale=x.scale.float(),
        target_mean=y.mean.float(),
        target_scale=y.scale.float(),
        target_anchors=states,
        beta=_median_norm(states.pooled, y.mean) / _median_norm(source, x.mean),
        quality=quality,
        texts_sha256=texts_sha256(texts) if texts else "",
        about=dict(about or {}),
        own_benign=None if benign is None else AnchorStates(benign.pooled.float(), benign.token.float()),
    )


def fit_map(
    x: torch.Tensor, y: torch.Tensor, settings: AlignmentSettings, tick: Callable[[], None] = lambda: None
) -> SpaceMap:
    """The map from x (n, D_s) to y (n, D_t), both centred and standardised, by the method of the settings."""
    tick()
    if settings.method == "ridge":
        return fit_ridge(x, y)
    if settings.method == "orthogonal":
        return fit_orthogonal(x, y)
    if settings.method == "reduced_rank":
        return fit_reduced_rank(x, y, rank=settings.rank, seed=settings.seed)
    return fit_mlp(x, y, hidden=settings.hidden, seed=settings.seed, tick=tick)


def texts_sha256(texts: Sequence[str]) -> str:
    """The sha256 of a sequence of texts, in their order."""
    return hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class _Standardised:
    """rows: (n, D) float64, centred and scaled. mean, scale: (D,), of the rows that are fitted on."""

    rows: torch.Tensor
    mean: torch.Tensor
    scale: torch.Tensor

    @classmethod
    def of(cls, states: torch.Tensor, fitted: torch.Tensor) -> _Standardised:
        states = states.double()
        mean, scale = states[fitted].mean(dim=0), channel_scales(states[fitted])
        return cls((states - mean) / scale, mean, scale)


def _held_out(rows: int, settings: AlignmentSettings) -> tuple[torch.Tensor, torch.Tensor]:
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(settings.seed))
    count = max(2, round(settings.held_out * rows))
    return order[:count], order[count:]


def _median_norm(states: torch.Tensor, mean: torch.Tensor) -> float:
    return float((states.double() - mean).norm(dim=1).median())


def _check_rows(source: torch.Tensor, target: AnchorStates) -> None:
    shapes = [tuple(tensor.shape) for tensor in (source, target.pooled, target.token)]
    if any(len(shape) != 2 for shape in shapes) or shapes[1] != shapes[2] or shapes[0][0] != shapes[1][0]:
        raise SafetySteeringError(
            f"Source states {shapes[0]} and target states {shapes[1]} do not belong together. Expected one row an "
            "anchor in both, in the same order."
        )
    if len(source) < MIN_ANCHORS:
        raise SafetySteeringError(
            f"{len(source)} anchors are too few to align two spaces. At least {MIN_ANCHORS} are needed; 1000 are good."
        )
    if not all(bool(torch.isfinite(tensor).all()) for tensor in (source, target.pooled, target.token)):
        raise SafetySteeringError(
            "The anchors' states hold NaN or infinite values. Try the encoder in another precision (bf16 or fp32)."
        )
    if not all(bool((tensor.std(dim=0) > 0).any()) for tensor in (source.float(), target.pooled)):
        raise SafetySteeringError("Every anchor has the same state, so there is nothing to align. Check the encoder.")
