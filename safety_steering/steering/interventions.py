"""Interventions: how a direction changes hidden states h (B, N, D). Pure functions on tensors.

With p_c = <h, u_c> for each category c, strength s, weight w_c:

    add      h + sum_c s w_c g_c u_c                          (REINS, arXiv 2606.17257; arXiv 2606.05290)
    ablate   h + s U^T G^-1 (w * d),  d_c = center_c - p_c
    clamp    h + s U^T G^-1 (w * d),  d_c = max(0, center_c - p_c)     (leaves alone what is already safe)

G is the matrix of overlaps <u_a, u_b> with its off-diagonal divided by (1 + RIDGE). A component that categories share
is corrected once, single and orthogonal categories are corrected exactly, and nearly parallel ones stay bounded. Then
norm:

    none     nothing
    token    each token is rescaled to its former L2 norm
    channel  per sample, each channel is rescaled to its former L2 norm over the editable tokens

A gate lets a category act only where its projection lies below `threshold` in units of its benign standard deviation:
of the mean over a sample's editable tokens (pooled), or of each token. The gate `prompt` is decided elsewhere, once for
each prompt and category (`prompt_gate`); here it acts on the tokens below `token_threshold`, if there is one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from ..errors import SafetySteeringError
from ..vectors.vector import HookPointDirections, Suggestion

INTERVENTIONS = ("add", "ablate", "clamp")
NORMS = ("none", "token", "channel")
GATES = ("off", "pooled", "token", "prompt")
RIDGE = 0.05


@dataclass(frozen=True)
class Intervention:
    """What to do at a hook point. `threshold` is in benign standard deviations and belongs to `gate`.

    false_alarm: with the gate `prompt`, the share of benign prompts that may open it; it then replaces `threshold`.
    token_threshold: with the gate `prompt`, act only on tokens below it, in benign standard deviations; None: on all.

    Raises:
        SafetySteeringError: on construction, for an unknown name or a threshold that is not a number.
    """

    kind: str = "add"
    norm: str = "token"
    gate: str = "off"
    threshold: float = -1.0
    false_alarm: float = 0.0
    token_threshold: float | None = None

    def __post_init__(self) -> None:
        for value, allowed in ((self.kind, INTERVENTIONS), (self.norm, NORMS), (self.gate, GATES)):
            if value not in allowed:
                raise SafetySteeringError(f"'{value}' is not one of {', '.join(allowed)}.")
        if math.isnan(self.threshold):
            raise SafetySteeringError("The gate's threshold must be a number, not NaN.")
        if self.token_threshold is not None and math.isnan(self.token_threshold):
            raise SafetySteeringError("The token threshold must be a number, not NaN.")

    @property
    def gate_in_words(self) -> str:
        """The gate and where it opens; empty without one."""
        if self.gate == "off":
            return ""
        where = f"{self.false_alarm:.3g} false alarms" if self.false_alarm else f"{self.threshold:g} std"
        tokens = "" if self.token_threshold is None else f" and tokens below {self.token_threshold:g} std"
        return f"{self.gate} gate at {where}{tokens}"


def suggested(suggestion: Suggestion) -> Intervention:
    """The intervention of a whole suggestion, as `vectors.suggestion.recommended` gives it."""
    return Intervention(
        kind=suggestion.intervention,
        norm=suggestion.norm,
        gate=suggestion.gate,
        threshold=suggestion.threshold,
        false_alarm=suggestion.false_alarm if suggestion.gate == "prompt" else 0.0,
        token_threshold=suggestion.token_threshold,
    )


@dataclass(frozen=True, eq=False)
class Targets:
    """The active categories of one hook point in one sigma bin, stacked: `directions` (C, D), other fields (C,).

    `solve` (C, C) is G^-1 of this module's equation.
    """

    directions: torch.Tensor
    gap: torch.Tensor
    center: torch.Tensor
    std_pooled: torch.Tensor
    std_token: torch.Tensor
    weight: torch.Tensor
    solve: torch.Tensor
    categories: tuple[str, ...]

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Targets:
        """The same targets on another device, in another floating dtype."""
        tensors = {name: value.to(device, dtype) for name, value in vars(self).items() if name != "categories"}
        return Targets(**tensors, categories=self.categories)


def active_categories(categories: Iterable[str], mix: Mapping[str, float]) -> tuple[str, ...]:
    """The categories that a mix weighs, in their order."""
    return tuple(name for name in categories if mix.get(name, 0.0) != 0.0)


def stack_targets(point: HookPointDirections, mix: Mapping[str, float], sigma_bin: int) -> Targets:
    """Stack the categories of non-zero weight, in float64 on the CPU.

    Raises:
        SafetySteeringError: every weight is zero.
    """
    active = active_categories(point.categories, mix)
    if not active:
        raise SafetySteeringError("Every category of the mix has weight 0. Raise one, or remove Apply Safety Steering.")
    chosen = [point.categories[name] for name in active]
    directions = torch.stack([category.direction[sigma_bin] for category in chosen]).double()
    # the file holds float32: renormalise, so that a single category's overlap with itself is exactly one
    directions = directions / directions.norm(dim=1, keepdim=True)

    def column(name: str) -> torch.Tensor:
        return torch.stack([getattr(category, name)[sigma_bin] for category in chosen]).double()

    return Targets(
        directions=directions,
        gap=column("gap"),
        center=column("center"),
        std_pooled=column("std_pooled"),
        std_token=column("std_token"),
        weight=torch.tensor([float(mix[name]) for name in active], dtype=torch.float64),
        solve=torch.linalg.inv(_overlaps(directions)),
        categories=active,
    )


def _overlaps(directions: torch.Tensor) -> torch.Tensor:
    overlaps = directions @ directions.T / (1 + RIDGE)
    overlaps.fill_diagonal_(1.0)
    return overlaps


def project(h: torch.Tensor, targets: Targets) -> torch.Tensor:
    """<h, u_c> of every token: (B, N, D) -> (B, N, C)."""
    return h @ targets.directions.T


def pooled(values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Mean of (B, N, X) over the tokens where `mask` (B or 1, N, 1) holds: (B, 1, X); zero where none does."""
    if mask is None:
        return values.mean(dim=1, keepdim=True)
    kept = mask.to(values.dtype)
    return (values * kept).sum(dim=1, keepdim=True) / kept.sum(dim=1, keepdim=True).clamp_min(1)


def gate_open(
    p: torch.Tensor,
    targets: Targets,
    how: Intervention,
    mask: torch.Tensor | None,
    opened: torch.Tensor | None = None,
) -> torch.Tensor:
    """Where each category may act: boolean, (B, 1 or N, C), from projections `p` (B, N, C).

    opened: (B, 1, C) boolean, what the gate `prompt` decided.

    Raises:
        SafetySteeringError: the gate is `prompt` and nothing was decided.
    """
    if how.gate == "off":
        return torch.ones_like(p[:, :1], dtype=torch.bool)
    tiny = torch.finfo(p.dtype).tiny  # keeps a threshold of +-infinity meaningful where the deviation is zero
    if how.gate == "prompt":
        if opened is None:
            raise SafetySteeringError("The gate 'prompt' was not decided: the prompt's states were not read.")
        if how.token_threshold is None:
            return opened
        return opened & (p - targets.center < how.token_threshold * targets.std_token.clamp_min(tiny))
    if how.gate == "pooled":
        return pooled(p, mask) - targets.center < how.threshold * targets.std_pooled.clamp_min(tiny)
    return p - targets.center < how.threshold * targets.std_token.clamp_min(tiny)


def coefficients(p: torch.Tensor, acts: torch.Tensor, targets: Targets, kind: str) -> torch.Tensor:
    """How far to move along each category's direction at strength 1, (B, 1 or N, C), where the gate `acts`."""
    if kind == "add":
        return acts * (targets.weight * targets.gap)
    deficit = targets.center - p
    if kind == "clamp":
        deficit = deficit.clamp_min(0)
    return (acts * targets.weight * deficit) @ targets.solve


def kept_norms(h: torch.Tensor, norm: str, mask: torch.Tensor | None) -> torch.Tensor:
    """The L2 norms of `h` (B, N, D) that `norm` keeps: (B, N, 1) of its tokens, or (B, 1, D) of its channels."""
    counted, dim = h, -1
    if norm == "channel":
        counted, dim = h if mask is None else h.masked_fill(~mask, 0), 1
    norms: torch.Tensor = torch.linalg.vector_norm(counted, dim=dim, keepdim=True)
    return norms


@dataclass(frozen=True, eq=False)
class Effect:
    """What an intervention did to each sample's editable tokens.

    editable: (B,) number of editable tokens. before, after: (B, C) mean projections, `after` as computed, before it is
    rounded to h's dtype. acted: (B,) share of tokens that the gate let through. shift: (B,) mean of ||change|| / ||h||.
    """

    editable: torch.Tensor
    before: torch.Tensor
    after: torch.Tensor
    acted: torch.Tensor
    shift: torch.Tensor


def intervene(
    h: torch.Tensor,
    targets: Targets,
    how: Intervention,
    strength: torch.Tensor | float,
    mask: torch.Tensor | None = None,
    opened: torch.Tensor | None = None,
) -> tuple[torch.Tensor, Effect]:
    """Steer hidden states. The result has h's dtype and is bit-equal to `h` where `mask` does not hold.

    Args:
        h: (B, N, D) hidden states, any floating dtype; the arithmetic is done in `targets`' dtype.
        strength: in gaps; a number, or a tensor that broadcasts to (B, 1, 1).
        mask: (B or 1, N, 1) boolean, the editable tokens; None: all.
        opened: (B, 1, C) boolean, which categories the gate `prompt` lets act; for that gate alone.

    Example:
        >>> import torch
        >>> from safety_steering import intervene, load_vector
        >>> from safety_steering.steering.interventions import Intervention, stack_targets
        >>> point = load_vector("vectors/smollm2_135m_portable.safetensors").at("source.14")
        >>> targets = stack_targets(point, {"violence": 1.0}, sigma_bin=0)
        >>> h = torch.randn(2, 5, 576)  # batch, tokens, channels
        >>> steered, effect = intervene(h, targets, Intervention("add"), strength=2.0)
        >>> bool((effect.after > effect.before).all())  # moved from unsafe to safe
        True
    """
    # one copy, edited in place: the cost of a hook is the number of passes over the hidden states
    in_place = not h.requires_grad  # training reads the former values once more
    moved = h.to(targets.directions.dtype, copy=True)
    p = project(moved, targets)
    acts = gate_open(p, targets, how, mask, opened)
    step = (strength * coefficients(p, acts, targets, how.kind)).expand_as(p)
    size = kept_norms(moved, "token", mask)
    former = kept_norms(moved, "channel", mask) if how.norm == "channel" else size
    directions = targets.directions.expand(len(h), -1, -1)
    moved = moved.baddbmm_(step, directions) if in_place else moved.baddbmm(step, directions)
    scale = torch.ones_like(size)
    if how.norm != "none":  # zeros stay zeros
        scale = former / kept_norms(moved, how.norm, mask).clamp_min(torch.finfo(moved.dtype).tiny)
        moved = moved.mul_(scale) if in_place else moved * scale
    if how.norm == "channel":
        after, change = project(moved, targets), kept_norms(moved - h, "token", mask)
    else:
        after, change = _derived(p, step, size, scale, targets)
    p, size, after, change = (measured.detach() for measured in (p, size, after, change))
    any_acts = acts.any(dim=-1, keepdim=True).to(p.dtype).expand_as(size)
    every = torch.ones_like(size, dtype=torch.bool) if mask is None else mask.expand_as(size)
    effect = Effect(
        editable=every.sum(dim=1)[:, 0],
        before=pooled(p, mask)[:, 0],
        after=pooled(after, mask)[:, 0],
        acted=pooled(any_acts, mask)[:, 0, 0],
        shift=pooled(change / size.clamp_min(1e-12), mask)[:, 0, 0],
    )
    steered = moved.to(h.dtype)
    return (steered if mask is None else torch.where(mask, steered, h)), effect


def _derived(
    p: torch.Tensor, step: torch.Tensor, size: torch.Tensor, scale: torch.Tensor, targets: Targets
) -> tuple[torch.Tensor, torch.Tensor]:
    """Projections (B, N, C) of k (h + step U) and length (B, N, 1) of its change, without another pass over h.

    ||k (h + step U) - h||^2 = (k - 1)^2 ||h||^2 + 2 k (k - 1) <step, p> + k^2 <step, step U U^T>, k = `scale`.
    """
    turned = step @ (targets.directions @ targets.directions.T)
    along, length = ((step * x).sum(dim=-1, keepdim=True) for x in (p, turned))
    squared = ((scale - 1) * size) ** 2 + 2 * scale * (scale - 1) * along + scale**2 * length
    return scale * (p + turned), squared.clamp_min(0).sqrt()
