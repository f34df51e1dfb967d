"""Alignment: a map T from a source space to a target space, fitted on benign anchors only.

    z_s = (h_s - mean_s) / scale_s,   z_t = (h_t - mean_t) / scale_t,   T(h_s) = mean_t + scale_t * map(z_s)
    beta = median ||h_t - mean_t|| / median ||h_s - mean_s||

(arXiv 2606.05290.) Means and scales are those of the anchors. Channels are standardised because language models have
channels hundreds of times as large as the rest, which would be all that a fit sees. The target's states on the anchors
stay in the alignment: what a carried direction does to benign prompts is measured on them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from ..errors import SafetySteeringError
from ..hook_point import HookPoint
from ..linear_algebra import channel_scales
from .linear import fit_orthogonal, fit_reduced_rank, fit_ridge
from .maps import MIN_ANCHORS, AlignmentSettings, SpaceMap
from .mlp import fit_mlp
from .quality import Quality, judge

if TYPE_CHECKING:
    from .maps import AlignmentSettings


@dataclass(frozen=True)
class Side:
    """One side of an alignment: a hook point and its space; of a target also the model, where the space needs it.

    name: of the model or encoder, for people. weight_fingerprint, block_counts: as of VectorInfo.
    """

    hook_point: HookPoint
    space: str
    name: str = ""
    family: str = ""
    weight_fingerprint: str = ""
    block_counts: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "hook_point", HookPoint(self.hook_point))


@dataclass(frozen=True, eq=False)
class AnchorStates:
    """States of n anchors: pooled (n, D), the mean over the editable tokens, and token (n, D), one of them. float32."""

    pooled: torch.Tensor
    token: torch.Tensor


@dataclass(frozen=True, eq=False)
class Alignment:
    """A fitted alignment.

    source_mean, source_scale: (D_s,); target_mean, target_scale: (D_t,). target_anchors: the n anchors in the target.
    texts_sha256: of the anchors' texts. about: further facts of the fit, plain JSON. own_benign: the target's states of
        benign prompts in the style that it is used with, if there are any.

    Raises:
        SafetySteeringError: on construction, if shapes or values are not as documented.
    """

    source: Side
    target: Side
    settings: AlignmentSettings
    map: SpaceMap
    source_mean: torch.Tensor
    source_scale: torch.Tensor
    target_mean: torch.Tensor
    target_scale: torch.Tensor
    target_anchors: AnchorStates
    beta: float
    quality: Quality
    texts_sha256: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)
    own_benign: AnchorStates | None = None

    def __post_init__(self) -> None:
        check_alignment(self)

    @property
    def benign(self) -> AnchorStates:
        """The target's states on which a carried direction is measured: of own benign prompts, else of the anchors."""
        return self.target_anchors if self.own_benign is None else self.own_benign

    @property
    def anchors(self) -> int:
        """n, the number of anchors."""
        return len(self.target_anchors.pooled)

    @property
    def undetermined(self) -> bool:
        """Whether there are fewer anchors than source channels: off their span no method knows the map."""
        return self.anchors - 1 < len(self.source_mean)

    def carry(self, v: torch.Tensor) -> torch.Tensor:
        """T(m + v) - T(m) with m the anchors' mean: (k, D_s) displacements -> (k, D_t), float64.

        A direction is a difference, so that no offset of the map leaks into it.
        """
        z = v.double() / self.source_scale.double()
        moved: torch.Tensor = (self.map(z) - self.map(torch.zeros_like(z))) * self.target_scale.double()
        return moved

    def tensors(self) -> dict[str, torch.Tensor]:
        """Every tensor under its name in the file."""
        own = self.own_benign
        benign = {} if own is None else {"target/benign_pooled": own.pooled, "target/benign_token": own.token}
        return {
            **benign,
            **{f"map/{name}": tensor for name, tensor in self.map.tensors.items()},
            "source/mean": self.source_mean,
            "source/scale": self.source_scale,
            "target/mean": self.target_mean,
            "target/scale": self.target_scale,
            "target/pooled": self.target_anchors.pooled,
            "target/token": self.target_anchors.token,
            "quality/own": self.quality.own,
            "quality/other": self.quality.other,
        }

    def facts(self) -> dict[str, Any]:
        """Everything but the tensors, as plain data."""
        return {
            "source": asdict(self.source),
            "target": asdict(self.target),
            "settings": asdict(self.settings),
            "map_kind": self.map.kind,
            "chosen": dict(self.map.chosen),
            "beta": self.beta,
            "r2": self.quality.r2,
            "fitted": self.quality.fitted,
            "texts_sha256": self.texts_sha256,
            "about": dict(self.about),
        }

    @cached_property
    def sha256(self) -> str:
        """Hash of the content, the same for every copy of the alignment."""
        digest = hashlib.sha256(json.dumps(self.facts(), sort_keys=True).encode())
        for name, tensor in sorted(self.tensors().items()):
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().view(torch.uint8).numpy().data)
        return digest.hexdigest()


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
    """Fit the map from `source` (n, D_s) to `target` (n, D_t): row i of both is the same benign anchor.

    It is judged by a fit on the anchors that are not held out; the map that is returned is fitted on all of them.

    Args:
        target: pooled states, or with them one token's of each anchor. Without tokens the spread of tokens is taken to
            be that of the pooled states.
        method: a name, or the settings.
        texts: the anchors, only for their hash.
        benign: target states of benign prompts in the style that the model is used with. The fit does not see them.
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


def texts_sha256(texts: Sequence[str]) -> str:
    """The sha256 of a sequence of texts, in their order."""
    return hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class _Standardised:
    """rows (n, D) float64, centred and scaled by the mean and scale of those that are fitted on."""

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
            f"{len(source)} anchors are too few to align two spaces; {MIN_ANCHORS} are the least, 1000 are good."
        )
    if not all(bool(torch.isfinite(tensor).all()) for tensor in (source, target.pooled, target.token)):
        raise SafetySteeringError(
            "The anchors' states hold NaN or infinite values. Try the encoder in another precision (bf16 or fp32)."
        )
    if not all(bool((tensor.std(dim=0) > 0).any()) for tensor in (source.float(), target.pooled)):
        raise SafetySteeringError("Every anchor has the same state, so there is nothing to align. Check the encoder.")


def check_alignment(alignment: Alignment) -> None:
    """Raise SafetySteeringError unless shapes and values are as documented on Alignment."""
    source, target = alignment.map.widths
    anchors, quality = alignment.target_anchors, alignment.quality
    rows = len(anchors.pooled)
    expected = {
        "source/mean": (source,),
        "source/scale": (source,),
        "target/mean": (target,),
        "target/scale": (target,),
        "target/pooled": (rows, target),
        "target/token": (rows, target),
        "quality/own": (len(quality.own),),
        "quality/other": (len(quality.own),),
    }
    if (own := alignment.own_benign) is not None:
        expected |= {name: (len(own.pooled), target) for name in ("target/benign_pooled", "target/benign_token")}
    tensors = alignment.tensors()
    for name, shape in expected.items():
        tensor = tensors[name]
        if tensor.dtype != torch.float32 or tuple(tensor.shape) != shape or not bool(torch.isfinite(tensor).all()):
            raise SafetySteeringError(
                f"Not a valid alignment: {name} is {tensor.dtype} of shape {tuple(tensor.shape)}; expected finite "
                f"float32 of shape {shape}."
            )
    for scales in (alignment.source_scale, alignment.target_scale):
        if not bool((scales > 0).all()):
            raise SafetySteeringError("Not a valid alignment: a channel's scale is not above 0.")
    numbers = (alignment.beta, quality.r2)
    if (
        not all(torch.isfinite(torch.tensor(numbers)).tolist())
        or alignment.beta <= 0
        or not len(quality.own)
        or not rows
    ):
        raise SafetySteeringError("Not a valid alignment: beta, R2 or the number of anchors makes no sense.")
    for side in (alignment.source, alignment.target):
        if not side.space:
            raise SafetySteeringError("Not a valid alignment: a side names no space.")


# --- Fits a map by the method's name.


def fit_map(
    x: torch.Tensor, y: torch.Tensor, settings: AlignmentSettings, tick: Callable[[], None] = lambda: None
) -> SpaceMap:
    """The map from x (n, D_s) to y (n, D_t), both centred and standardised. tick: called now and then."""
    tick()
    if settings.method == "ridge":
        return fit_ridge(x, y)
    if settings.method == "orthogonal":
        return fit_orthogonal(x, y)
    if settings.method == "reduced_rank":
        return fit_reduced_rank(x, y, rank=settings.rank, seed=settings.seed)
    return fit_mlp(x, y, hidden=settings.hidden, seed=settings.seed, tick=tick)
