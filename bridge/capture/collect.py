"""Capture: pooled hidden states of the prompts that a sampler run generates, read through the same hooks that steer.

One run gives one row a sample of its batch, or one row a frame of each. At each hook point and sigma bin a row holds
the mean state over its editable tokens and a few tokens' states, both averaged over the model calls of that bin, and
one token's state from the last. `kept_tokens` says which tokens are kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP

from ...safety_steering.activations import Source, States
from ...safety_steering.errors import SafetySteeringError
from ...safety_steering.hook_point import HookPoint
from ..models.fingerprints import fingerprint
from ..models.model_map import block_space, find_output, patcher_shape, read_shape, state_space
from ..models.swaps import unwrap
from ..models.tokens import TokenRange, to_sequence
from ..steering.branches import UNKNOWN, call_roles, is_targeted, roles_by_uuid
from ..steering.model_call import ModelCall, named, sigma_of
from .kept_tokens import kept_tokens, most_tokens

WRAPPER_KEY = "safety_steering_capture"
# tokens that are copied to float64 at a time, so that a long video's states are never held twice
TOKENS_AT_ONCE = 4096


def capture_source(
    patcher: ModelPatcher, hook_points: tuple[HookPoint, ...], sigma_edges: tuple[float, ...], text_width: int
) -> Source:
    """The model, hook points and sigma bins of a capture.

    Args:
        sigma_edges: (K + 1) ascending edges of the sigma bins.
        text_width: channels of the conditioning states, which the model itself does not tell.

    Raises:
        MismatchError: the model has no such hook point.
    """
    shape = patcher_shape(patcher)
    return Source(
        hook_points={
            point: (block_space(shape, point), shape.widths[point])
            if point.in_blocks
            else (state_space(shape.family, point, text_width), text_width)
            for point in hook_points
        },
        sigma_edges=sigma_edges,
        family=shape.family.name,
        model_name=shape.name,
        weight_fingerprint=fingerprint(patcher),
        block_counts=shape.block_counts,
    )


@dataclass
class _Sums:
    """Running sums of one hook point, float64: total (B, K, D), count (B, K), token (B, K, D).

    tokens: (B, K, T, D) float32, with as many summands as filled (B, K, T).
    """

    total: torch.Tensor
    count: torch.Tensor
    token: torch.Tensor
    tokens: torch.Tensor
    filled: torch.Tensor


class Capture:
    """Reads a model's sampler runs after `attach`. After each run `states` holds the states of that run's samples.

    branch: the side of guidance that is read. Several conditionings of that side are averaged. Prompts with areas,
        which core copies between the branches, are not told apart.
    by_frame: one row for each latent frame of a sample, in order, instead of one row for the sample.
    token_fractions: for each sample of the next run, which of its editable tokens is kept, as a fraction in [0, 1).
    token_pairs: for each sample of the next run, the id that draws its few tokens; twins share it.
    """

    def __init__(self, source: Source, branch: str = "positive", *, by_frame: bool = False) -> None:
        self.source = source
        self.states: dict[str, States] = {}
        self.token_fractions: Sequence[float] = ()
        self.token_pairs: Sequence[str] = ()
        self._branch = branch
        self._by_frame = by_frame
        self._roles: dict[Any, str] = {}
        self._sums: dict[str, _Sums] = {}

    def attach(self, patcher: ModelPatcher) -> ModelPatcher:
        """A clone of `patcher` whose sampler runs are captured."""
        captured = patcher.clone()
        captured.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, WRAPPER_KEY, self.outer_sample)
        captured.add_wrapper_with_key(WrappersMP.APPLY_MODEL, WRAPPER_KEY, self.apply_model)
        return captured

    def outer_sample(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        """The OUTER_SAMPLE wrapper: one sampler run."""
        self._roles = roles_by_uuid(executor.class_obj.conds)
        self._sums = {}
        self.states = {}
        samples = executor(*args, **kwargs)
        self.states = {name: _finish(sums) for name, sums in self._sums.items()}
        self._sums = {}
        return samples

    def apply_model(self, executor: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The APPLY_MODEL wrapper: one model call.

        Raises:
            SafetySteeringError: `by_frame` is set and this call does not have whole frames.
        """
        diffusion_model = unwrap(executor.class_obj.diffusion_model)
        model_call = ModelCall(diffusion_model, read_shape(diffusion_model).family, named(args, kwargs))
        sigma_bin = self._bin_of(sigma_of(model_call.arguments))
        roles = call_roles(model_call.options, self._roles)
        rows = model_call.x.shape[0] // len(roles)
        chunks = [i for i, role in enumerate(roles) if self._is_read(role)]

        def collect(name: HookPoint, h: torch.Tensor, tokens: TokenRange) -> None:
            for chunk in chunks:
                part = h[chunk * rows : (chunk + 1) * rows, slice(*tokens.within(h.shape[1]))]
                mask = tokens.mask
                if mask is not None:
                    mask = mask[chunk * rows : (chunk + 1) * rows] if mask.shape[0] > 1 else mask.expand(rows, -1, 1)
                if self._by_frame:
                    part, mask = (_by_frame(one, tokens, name) for one in (part, mask))
                self._add(name, part, mask, sigma_bin)

        if self._by_frame and model_call.options.get("context_window") is not None:
            raise SafetySteeringError(
                "A context window shows the model a part of the frames at a time, so frames cannot be "
                "captured one by one. Choose the pooling 'mean', or remove the context windows."
            )
        hooks: dict[HookPoint, Any] = {}
        for name in self.source.hook_points:
            if name.in_blocks:
                hooks[name] = self._reader(name, model_call, collect)
            else:
                collect(name, *model_call.states(name))
        with model_call.hooked(hooks.items()):
            return executor(*args, **kwargs)

    def _is_read(self, role: str) -> bool:
        if self._branch == "positive" and "positive" in self._roles.values():
            return role in ("positive", UNKNOWN)  # not the further prompts of a guider
        return is_targeted(role, self._branch)

    def _reader(self, name: HookPoint, model_call: ModelCall, collect: Any) -> Any:
        of = find_output(model_call.family, name)
        tokens = model_call.tokens(name)

        def read(module: torch.nn.Module, inputs: Any, output: Any) -> None:
            h = output if of.stream.item is None else output[of.stream.item]
            collect(name, to_sequence(h, of.dims), tokens)

        return read

    def _bin_of(self, sigma: float) -> int:
        return int(torch.bucketize(torch.tensor(sigma), torch.tensor(self.source.sigma_edges[1:-1]), right=True))

    def _add(self, name: HookPoint, h: torch.Tensor, mask: torch.Tensor | None, k: int) -> None:
        """Add h (R, N, D) where mask (R, N, 1) holds. At once, because core changes block outputs in place later."""
        rows, count, width = h.shape
        if name not in self._sums:
            zeros = torch.zeros(rows, self.source.bins, width, dtype=torch.float64, device=h.device)
            few = zeros.new_zeros(rows, self.source.bins, most_tokens(name), width, dtype=torch.float32)
            self._sums[name] = _Sums(zeros, zeros[..., 0].clone(), zeros.clone(), few, few[..., 0].clone())
        sums = self._sums[name]
        given = self.token_fractions or (0.5,)
        fractions = [one for one in given for _ in range(rows // len(given))]  # the frames of a sample share one
        if mask is None:
            sums.total[:, k] += _sum(h, None) / max(count, 1)
            sums.count[:, k] += float(count > 0)
            kept = torch.tensor([min(math.floor(one * count), count - 1) for one in fractions], device=h.device)
        else:
            number = mask.sum(dim=1).double()
            sums.total[:, k] += _sum(h, mask) / number.clamp_min(1)
            sums.count[:, k] += (number[:, 0] > 0).double()
            wanted = torch.tensor(fractions, dtype=torch.float64, device=h.device)
            kept = (mask[..., 0].cumsum(dim=1) <= wanted[:, None] * number).sum(dim=1).clamp_max(count - 1)
        if count:
            every = torch.arange(rows, device=h.device)
            sums.token[:, k] = h[every, kept].double()
            pairs = self.token_pairs or ("",)
            ids = [one for one in pairs for _ in range(rows // len(pairs))]
            places, real = kept_tokens(name, ids, count, mask, h.device)
            sums.tokens[:, k] += torch.where(real[..., None], h[every[:, None], places].float(), 0.0)
            sums.filled[:, k] += real.float()


def _sum(h: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """The sum over the tokens of h (R, N, D) where mask (R, N, 1) holds; (R, D) float64."""
    total = torch.zeros(h.shape[0], h.shape[2], dtype=torch.float64, device=h.device)
    for start in range(0, h.shape[1], TOKENS_AT_ONCE):
        part = h[:, start : start + TOKENS_AT_ONCE].double()
        total += (part if mask is None else part * mask[:, start : start + TOKENS_AT_ONCE]).sum(dim=1)
    return total


def _by_frame(h: torch.Tensor | None, tokens: TokenRange, name: str) -> torch.Tensor | None:
    """h (R, N, D) as (R F, N / F, D), one row a latent frame."""
    if h is None:
        return None
    if not tokens.frame or h.shape[1] % tokens.frame:
        raise SafetySteeringError(
            f"{name} does not hold whole frames of a video, so frames cannot be captured one by one. "
            "Choose the pooling 'mean', or hook points of a video model's image stream."
        )
    return h.reshape(-1, tokens.frame, h.shape[2])


def _finish(sums: _Sums) -> States:
    """Means on the CPU, as `States` has them. A sigma bin without a model call, and a place without a token, is NaN."""
    seen = sums.count[..., None] > 0
    pooled = torch.where(seen, sums.total / sums.count[..., None].clamp_min(1), torch.nan)
    most = max(1, int((sums.filled > 0).sum(dim=2).max()))  # a short prompt's empty places are not stored
    tokens, filled = sums.tokens[:, :, :most], sums.filled[:, :, :most, None]
    few = torch.where(filled > 0, tokens / filled.clamp_min(1), torch.nan)
    return States(
        pooled.float().cpu(), torch.where(seen, sums.token, torch.nan).float().cpu(), few.to(torch.bfloat16).cpu()
    )
