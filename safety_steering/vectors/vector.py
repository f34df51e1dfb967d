"""The safety vector: per hook point and category a direction from unsafe to safe, with the statistics to use it.

A vector is frozen. Changing it (`with_mix`, `with_info`) makes a new one. `file` reads and writes it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import torch

from ..errors import MismatchError, SafetySteeringError
from ..hook_point import HookPoint
from ..language_models.words import Words
from .detector import UNIT_TOLERANCE, Detectors, complaint_about
from .mix import check_mix

KINDS = ("source", "native", "transferred")
GAP_KINDS = ("measured", "estimated")
# what a suggestion was chosen by: measured on a model, estimated from its harmless prompts, or taken from other models
CALIBRATED, BENIGN_ONLY, FAMILY_DEFAULT = "calibrated", "benign only", "family default"
BASES = ("", CALIBRATED, BENIGN_ONLY, FAMILY_DEFAULT)
DETECTOR_TENSORS = ("direction", "center", "std", "quantiles")
STATISTICS = ("gap", "center", "std_pooled", "std_token")
# what a direction was fitted on: mean states, or the tokens by which an unsafe prompt differs from its safe twin
POOLED, DIFFERING = "pooled", "differing"
WHOLE = "all"  # the category that is fitted on all others together


@dataclass(frozen=True, eq=False)
class Direction:
    """One category's direction at one hook point, for each of K sigma bins.

    direction: (K, D) float32, unit rows, pointing from unsafe to safe.
    gap: (K,) distance between the two class means along `direction`, in the units of the hidden state.
    center: (K,) benign mean of <h, direction>.
    std_pooled, std_token: (K,) standard deviation of <h, direction> over benign data, pooled per prompt and per token.
    """

    direction: torch.Tensor
    gap: torch.Tensor
    center: torch.Tensor
    std_pooled: torch.Tensor
    std_token: torch.Tensor


@dataclass(frozen=True, eq=False)
class HookPointDirections:
    """All categories' directions at one hook point.

    space: id of the coordinate system the directions live in.
    sigma_edges: (K + 1,) ascending noise levels; bin k holds for sigma in [edge k, edge k + 1); the outer bins also
        hold beyond their ends.
    token_norm: (K,) median norm of a token's state.
    """

    space: str
    sigma_edges: torch.Tensor
    token_norm: torch.Tensor
    categories: Mapping[str, Direction]

    @property
    def width(self) -> int:
        """D, the number of channels of the hidden state."""
        return int(next(iter(self.categories.values())).direction.shape[1])

    @property
    def bins(self) -> int:
        """K, the number of sigma bins."""
        return int(self.token_norm.shape[0])

    def bin_of(self, sigma: float) -> int:
        """The bin that holds at noise level `sigma`."""
        inner = self.sigma_edges[1:-1]
        return int(torch.bucketize(torch.tensor(sigma, dtype=inner.dtype), inner, right=True))


@dataclass(frozen=True, eq=False)
class Anchors:
    """A portable vector's source states on benign texts, by which another model's space is aligned with its own.

    hook_point: where they were taken, one of the vector's own.
    texts: n of them.
    states: (n, D) float32, pooled per text as `VectorInfo.pooling` says, as wide as the directions there.
    words: some of the texts' words with their states, (m, D) float32; None in older files.
    """

    hook_point: HookPoint
    texts: tuple[str, ...]
    states: torch.Tensor
    words: Words | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "hook_point", HookPoint(self.hook_point))


@dataclass(frozen=True)
class Suggestion:
    """How to steer with a vector. Empty texts: not chosen. `suggestion.recommended` fills them.

    strength: in gaps; strengths: hook point -> its own strength, where it differs from `strength`.
    threshold: of the gate, in benign standard deviations. false_alarm: share of benign prompts that the threshold was
        set to let through; 0 if it was not set by one. With the gate `prompt` it sets the threshold of each detector.
    token_threshold: with the gate `prompt`, act only on tokens below it, in benign standard deviations; None: on all.
    window: fractions of denoising. branch: of guidance.
    basis: what the settings were chosen by, one of BASES. basis_model, basis_judge: of a calibration, the model and the
        judge. basis_n: the number of prompts, those in the target's own style alone; 0 if there were none.
    """

    strength: float = 1.0
    hook_points: tuple[str, ...] = ()
    intervention: str = ""
    mix: Mapping[str, float] = field(default_factory=dict)
    norm: str = ""
    gate: str = ""
    threshold: float = 0.0
    false_alarm: float = 0.0
    token_threshold: float | None = None
    window: tuple[float, float] = (0.0, 1.0)
    branch: str = ""
    strengths: Mapping[str, float] = field(default_factory=dict)
    basis: str = ""
    basis_model: str = ""
    basis_judge: str = ""
    basis_n: int = 0

    def facts(self) -> dict[str, Any]:
        """Plain data, as in the file.

        Of the fields at their defaults only the first four are kept: older files have no others, and so their vectors
        keep their hash.
        """
        plain, default = asdict(self), asdict(Suggestion())
        first = ("strength", "hook_points", "intervention", "mix")
        return {name: value for name, value in plain.items() if name in first or value != default[name]}


@dataclass(frozen=True)
class VectorInfo:
    """Where a vector comes from and what it fits. Plain data, stored as strings in the file's metadata.

    validation_auc, counts: per category. block_counts: block list -> length, in running order.
    validated_on: names of models on which the vector was *measured*. provenance: one record per step that made it.
    """

    kind: str
    gap_kind: str
    family: str = ""
    model_name: str = ""
    weight_fingerprint: str = ""
    block_counts: Mapping[str, int] = field(default_factory=dict)
    pooling: str = ""
    window: tuple[float, float] = (0.0, 1.0)
    branch: str = ""
    method: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    prompts_sha256: str = ""
    validation_auc: Mapping[str, float] = field(default_factory=dict)
    suggestion: Suggestion = field(default_factory=Suggestion)
    validated_on: tuple[str, ...] = ()
    licence: str = ""
    provenance: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, eq=False)
class SafetyVector:
    """A checked, frozen safety vector.

    hook_points: hook point -> its directions; every hook point has the same categories.
    mix: the weights with which Apply combines the categories (category -> weight; categories not named weigh 0).
    detectors: what the gate `prompt` decides by, one a category; None for a vector whose directions do both.

    Raises:
        SafetySteeringError: on construction, if shapes, values or names are not as documented here.
    """

    hook_points: Mapping[HookPoint, HookPointDirections]
    info: VectorInfo
    mix: Mapping[str, float] = field(default_factory=dict)
    anchors: Anchors | None = None
    detectors: Detectors | None = None

    def __post_init__(self) -> None:
        points = {HookPoint(name): directions for name, directions in self.hook_points.items()}
        object.__setattr__(self, "hook_points", MappingProxyType(points))
        check_vector(self)
        weights = self.mix or self.info.suggestion.mix or dict.fromkeys(self.categories, 1.0)
        check_mix(weights, self.categories)
        object.__setattr__(self, "mix", MappingProxyType(dict(weights)))

    @property
    def categories(self) -> tuple[str, ...]:
        """Names of the categories, in the file's order."""
        return tuple(next(iter(self.hook_points.values())).categories)

    @cached_property
    def sha256(self) -> str:
        """Hash of the content (tensors and info; not of the mix), the same for every copy of the vector."""
        info = asdict(self.info) | {"suggestion": self.info.suggestion.facts()}
        digest = hashlib.sha256(json.dumps(info, sort_keys=True).encode())
        for name, tensor in sorted(self.tensors().items()):
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
        if self.anchors is not None:
            digest.update(json.dumps([self.anchors.hook_point, self.anchors.texts]).encode())
        if self.detectors is not None:
            digest.update(json.dumps([self.detectors.hook_point, self.detectors.space]).encode())
        return digest.hexdigest()

    def at(self, hook_point: HookPoint) -> HookPointDirections:
        """The directions at one hook point; MismatchError if the vector has none there."""
        if hook_point not in self.hook_points:
            raise MismatchError(f"This vector has no hook point '{hook_point}'. It has: {', '.join(self.hook_points)}.")
        return self.hook_points[hook_point]

    def with_mix(self, mix: Mapping[str, float]) -> SafetyVector:
        """The same vector with other category weights; MismatchError if a category is unknown."""
        check_mix(mix, self.categories)
        return replace(self, mix=mix)

    def with_info(self, **changes: Any) -> SafetyVector:
        """The same directions with some fields of `info` replaced."""
        return replace(self, info=replace(self.info, **changes))

    def tensors(self) -> dict[str, torch.Tensor]:
        """Every tensor under its name in the file: `<hook point>/<category>/<statistic>` and so on."""
        tensors: dict[str, torch.Tensor] = {}
        for name, point in self.hook_points.items():
            tensors[f"{name}/sigma_edges"] = point.sigma_edges
            tensors[f"{name}/token_norm"] = point.token_norm
            for category, direction in point.categories.items():
                tensors[f"{name}/{category}/direction"] = direction.direction
                for statistic in STATISTICS:
                    tensors[f"{name}/{category}/{statistic}"] = getattr(direction, statistic)
        if self.anchors is not None:
            tensors["anchors/activations"] = self.anchors.states
            if (words := self.anchors.words) is not None:
                tensors["anchors/words"] = words.states
                # text, first character, character after the last
                tensors["anchors/word_spans"] = torch.cat([words.texts[:, None], words.spans], dim=1).float()
        if self.detectors is not None:
            for category, detector in self.detectors.categories.items():
                for part in DETECTOR_TENSORS:
                    tensors[f"detector/{category}/{part}"] = getattr(detector, part)
        return tensors


def check_vector(vector: SafetyVector) -> None:
    """Raise SafetySteeringError unless every shape, value and name is as documented on the classes above."""
    info = vector.info
    _require(info.kind in KINDS, f"kind is '{info.kind}', expected one of {', '.join(KINDS)}")
    _require(info.gap_kind in GAP_KINDS, f"gap_kind is '{info.gap_kind}', expected one of {', '.join(GAP_KINDS)}")
    _check_suggestion(info.suggestion)
    _require(bool(vector.hook_points), "it has no hook point")
    names = {tuple(point.categories) for point in vector.hook_points.values()}
    _require(len(names) == 1 and names != {()}, "its hook points do not all have the same, non-empty categories")
    for category in next(iter(names)):
        # '=', ',' are the mix string's syntax and '/' separates the names of tensors
        _require(
            bool(category.strip()) and not set(category) & set("=,/"), f"'{category}' is not a valid category name"
        )
    for name, tensor in vector.tensors().items():
        _require(tensor.dtype == torch.float32, f"tensor {name} is {tensor.dtype}, expected torch.float32")
        _require(bool(torch.isfinite(tensor).all()), f"tensor {name} holds NaN or infinite values")
    for name, point in vector.hook_points.items():
        _check_hook_point(name, point)
    if vector.anchors is not None:
        _check_anchors(vector.anchors, vector.hook_points)
    if vector.detectors is not None:
        read = tuple(vector.hook_points) if info.kind == "source" else ("conditioning",)
        complaint = complaint_about(vector.detectors, vector.categories, read)
        _require(not complaint, complaint)


def _check_suggestion(suggestion: Suggestion) -> None:
    strengths = (suggestion.strength, *suggestion.strengths.values())
    _require(all(map(math.isfinite, strengths)), "the suggested strength is not a finite number")
    _require(math.isfinite(suggestion.threshold), "the suggested threshold is not a finite number")
    token = suggestion.token_threshold
    _require(token is None or math.isfinite(token), "the suggested token threshold is not a finite number")
    _require(0 <= suggestion.false_alarm <= 1, f"the suggested false alarm is {suggestion.false_alarm}, not 0 to 1")
    start, end = suggestion.window
    _require(0 <= start < end <= 1, f"the suggested window is {start:g} to {end:g}; it lies in 0 to 1, start first")
    bases = ", ".join(filter(None, BASES))
    _require(suggestion.basis in BASES, f"the suggestion's basis is '{suggestion.basis}', expected one of {bases}")
    _require(suggestion.basis_n >= 0, f"the suggestion's number of prompts is {suggestion.basis_n}")


def _check_anchors(anchors: Anchors, points: Mapping[HookPoint, HookPointDirections]) -> None:
    name = anchors.hook_point
    _require(name in points, f"its anchors were taken at '{name}', where it has no directions")
    shape, expected = tuple(anchors.states.shape), (len(anchors.texts), points[name].width)
    _require(bool(anchors.texts) and shape == expected, f"its anchors have shape {shape}, expected {expected}")
    if anchors.words is not None:
        _require(anchors.words.fit(anchors.texts, points[name].width), "its anchors' words do not belong to them")


def _check_hook_point(name: str, point: HookPointDirections) -> None:
    bins = point.token_norm.shape[0] if point.token_norm.ndim == 1 else 0
    _require(bins > 0, f"{name}/token_norm has shape {tuple(point.token_norm.shape)}, expected (K,)")
    _require(
        point.sigma_edges.shape == (bins + 1,) and bool((point.sigma_edges.diff() > 0).all()),
        f"{name}/sigma_edges are not {bins + 1} ascending values",
    )
    _require(bool(point.space), f"{name} names no space")
    for category, direction in point.categories.items():
        where = f"{name}/{category}"
        shape = tuple(direction.direction.shape)
        _require(len(shape) == 2 and shape[0] == bins and shape[1] > 0, f"{where}/direction has shape {shape}")
        norms = direction.direction.double().norm(dim=1)
        _require(bool(((norms - 1).abs() < UNIT_TOLERANCE).all()), f"{where}/direction is not of unit length")
        for statistic in STATISTICS:
            value = getattr(direction, statistic)
            _require(value.shape == (bins,), f"{where}/{statistic} has shape {tuple(value.shape)}, expected ({bins},)")
        for statistic in ("gap", "std_pooled", "std_token"):
            _require(bool((getattr(direction, statistic) >= 0).all()), f"{where}/{statistic} is negative")
    widths = {direction.direction.shape[1] for direction in point.categories.values()}
    _require(len(widths) == 1, f"{name} mixes directions of widths {sorted(widths)}")


def _require(condition: bool, complaint: str) -> None:
    if not condition:
        raise SafetySteeringError(f"Not a valid safety vector: {complaint}.")
