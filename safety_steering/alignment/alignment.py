"""An alignment: a map T from a source space to a target space, fitted on benign anchors only (arXiv 2606.05290).

    z_s = (h_s - mean_s) / scale_s,   z_t = (h_t - mean_t) / scale_t,   T(h_s) = mean_t + scale_t * map(z_s)
    beta = median ||h_t - mean_t|| / median ||h_s - mean_s||

Means and scales are those of the anchors. Channels are standardised because language models have channels hundreds of
times as large as the rest, which would dominate the fit. The target's states of the anchors stay in the alignment: the
statistics of a carried direction are measured on them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import torch

from ..errors import SafetySteeringError
from ..hook_point import HookPoint
from .maps import AlignmentSettings, SpaceMap
from .quality import Quality
from .words import WordAlignment


@dataclass(frozen=True)
class Side:
    """One side of an alignment: a hook point and its space.

    name: of the model or encoder, for people. family, weight_fingerprint, block_counts: as of VectorInfo, for a target
    inside a model.
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
    """States of n texts: pooled (n, D), the mean over the editable tokens, and token (n, D), one of them. float32."""

    pooled: torch.Tensor
    token: torch.Tensor


@dataclass(frozen=True, eq=False)
class Alignment:
    """A fitted alignment.

    source_mean, source_scale: (D_s,); target_mean, target_scale: (D_t,). target_anchors: the n anchors in the target.
    texts_sha256: of the anchors' texts. about: further facts of the fit, plain JSON.
    own_benign: the target's states of benign prompts in the style that it is used with, if there are any.
    words: the maps of words; None where only whole captions were aligned.

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
    words: WordAlignment | None = None

    def __post_init__(self) -> None:
        check_alignment(self)

    @property
    def benign(self) -> AnchorStates:
        """The target's states that statistics are measured on: of own benign prompts, else of the anchors."""
        return self.target_anchors if self.own_benign is None else self.own_benign

    @property
    def anchors(self) -> int:
        """n, the number of anchors."""
        return len(self.target_anchors.pooled)

    @property
    def undetermined(self) -> bool:
        """Whether there are fewer anchors than source channels, so that the map is unknown outside of their span."""
        return self.anchors - 1 < len(self.source_mean)

    def carry(self, v: torch.Tensor) -> torch.Tensor:
        """Displacements v (k, D_s) -> T(m + v) - T(m) (k, D_t) float64, with m the anchors' mean.

        The difference keeps the map's offset out of a direction.
        """
        z = v.double() / self.source_scale.double()
        moved: torch.Tensor = (self.map(z) - self.map(torch.zeros_like(z))) * self.target_scale.double()
        return moved

    def tensors(self) -> dict[str, torch.Tensor]:
        """Every tensor by its name in the file."""
        own = self.own_benign
        benign = {} if own is None else {"target/benign_pooled": own.pooled, "target/benign_token": own.token}
        return {
            **benign,
            **({} if self.words is None else self.words.tensors()),
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
        words = {} if self.words is None else {"words": self.words.facts()}
        return words | {
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
    if (words := alignment.words) is not None:
        expected |= {
            "words/source_scale": (source,),
            "words/target_scale": (target,),
            "words/tokens": (len(words.tokens), target),
        }
        if words.words.widths != (source, target) or words.joint.widths != (source, target):
            raise SafetySteeringError("Not a valid alignment: its maps of words have other widths than its captions'.")
    tensors = alignment.tensors()
    for name, shape in expected.items():
        tensor = tensors[name]
        if tensor.dtype != torch.float32 or tuple(tensor.shape) != shape or not bool(torch.isfinite(tensor).all()):
            raise SafetySteeringError(
                f"Not a valid alignment: {name} is {tensor.dtype} of shape {tuple(tensor.shape)}; expected finite "
                f"float32 of shape {shape}."
            )
    all_scales = [alignment.source_scale, alignment.target_scale]
    if alignment.words is not None:
        all_scales += [alignment.words.source_scale, alignment.words.target_scale]
    for scales in all_scales:
        if not bool((scales > 0).all()):
            raise SafetySteeringError("Not a valid alignment: a channel's scale is not above 0.")
    if not (0 < alignment.beta < math.inf and math.isfinite(quality.r2) and len(quality.own) and rows):
        raise SafetySteeringError(
            f"Not a valid alignment: beta is {alignment.beta}, R2 {quality.r2}, with {rows} anchors and "
            f"{len(quality.own)} held out; expected finite numbers, beta and both counts above 0."
        )
    for side in (alignment.source, alignment.target):
        if not side.space:
            raise SafetySteeringError("Not a valid alignment: the source or the target has no space id.")
