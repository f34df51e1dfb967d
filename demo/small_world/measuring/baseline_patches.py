"""The baselines on a ComfyUI model, through core's own patches, so that any sampler runs them.

SLD is a `sampler_cfg_function`, which makes one more model call a step for the concept. SAFREE is a model function
wrapper, which edits the prompt's states. CASteer hangs on the cross-attention modules for the length of a model call.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP

from .baselines import Sld, basis_of, casteer, guided, safree_edit, safree_until, sld_guidance

KEY = "baseline"
POSITIVE = 0  # core numbers the lists of conditionings that it batches: the prompt first


def with_sld(patcher: ModelPatcher, concept: torch.Tensor, how: Sld) -> ModelPatcher:
    """A clone that samples with SLD against the concept's text states (1, N, D). Predictions are velocities."""
    patched = patcher.clone()
    guidance = _SldGuidance(concept, how)
    patched.set_model_sampler_cfg_function(guidance)
    patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, guidance.outer_sample)
    return patched


class _SldGuidance:
    """The guidance of one sampler run after another; the momentum belongs to the run."""

    def __init__(self, concept: torch.Tensor, how: Sld) -> None:
        self._concept = concept
        self._how = how
        self._momentum: torch.Tensor | None = None

    def outer_sample(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        self._momentum = None
        return executor(*args, **kwargs)

    def __call__(self, args: dict[str, Any]) -> torch.Tensor:
        model, x, sigma = args["model"], args["input"], args["sigma"]
        size = sigma.reshape(-1, *[1] * (x.ndim - 1))
        (denoised,) = comfy.samplers.calc_cond_batch(
            model, [[self._as_concept(cond) for cond in args["input_cond"]]], x, sigma, args["model_options"]
        )
        prompt, none, concept = args["cond"] / size, args["uncond"] / size, (x - denoised) / size
        momentum = torch.zeros_like(x) if self._momentum is None else self._momentum
        gamma, self._momentum = sld_guidance(prompt, none, concept, momentum, self._how)
        warm = float(sigma.max()) > float(model.model_sampling.percent_to_sigma(self._how.warmup))
        return guided(prompt, none, 0.0 if warm else gamma, args["cond_scale"]) * size

    def _as_concept(self, cond: dict[str, Any]) -> dict[str, Any]:
        """The prompt's processed conditioning with the concept's states in place of its own."""
        states = cond["model_conds"]["c_crossattn"]
        concept = type(states)(self._concept.to(states.cond))
        return {**cond, "model_conds": {**cond["model_conds"], "c_crossattn": concept}, "uuid": uuid.uuid4()}


def with_safree(patcher: ModelPatcher, concepts: torch.Tensor, alpha: float, most: float) -> ModelPatcher:
    """A clone whose prompts' states are edited by SAFREE. concepts: one embedding a row (n, D).

    most: share of the denoising in which an edit holds at most; 1 switches the self-validating filter off.
    """
    patched = patcher.clone()
    basis = basis_of(concepts)
    sampling = patched.get_model_object("model_sampling")

    def wrapper(apply_model: Callable[..., torch.Tensor], args: dict[str, Any]) -> torch.Tensor:
        states = args["c"]["c_crossattn"]
        rows = len(states) // len(args["cond_or_uncond"])
        edited, sigma = states.clone(), float(args["timestep"].max())
        for chunk, branch in enumerate(args["cond_or_uncond"]):
            for row in range(chunk * rows, (chunk + 1) * rows) if branch == POSITIVE else ():
                spoken = (states[row] != 0).any(dim=1)
                before = states[row][spoken]
                after = safree_edit(before, basis.to(before), alpha)
                until = 1.0 if most >= 1 else safree_until(before, after, most)
                if sigma > float(sampling.percent_to_sigma(until)):
                    edited[row][spoken] = after
        return apply_model(args["input"], args["timestep"], **{**args["c"], "c_crossattn": edited})

    patched.set_model_unet_function_wrapper(wrapper)
    return patched


def with_casteer(patcher: ModelPatcher, directions: torch.Tensor, sigmas: Sequence[float], beta: float) -> ModelPatcher:
    """A clone steered by CASteer. directions (steps, blocks, concepts, D): those of the step nearest in noise hold."""

    def edit(step: int, block: int, h: torch.Tensor, branches: Sequence[int]) -> torch.Tensor:
        for direction in directions[step, block]:
            h = casteer(h, direction.to(h), beta)
        return h

    return _hooked(patcher, sigmas, edit)


def reading_cross_attention(
    patcher: ModelPatcher, sigmas: Sequence[float], read: Callable[[int, int, torch.Tensor], None]
) -> ModelPatcher:
    """A clone that shows `read` every cross-attention output for the prompts: step, block, states (B, N, D)."""

    def look(step: int, block: int, h: torch.Tensor, branches: Sequence[int]) -> torch.Tensor:
        read(step, block, h.chunk(len(branches))[list(branches).index(POSITIVE)])
        return h

    return _hooked(patcher, sigmas, look)


Edit = Callable[[int, int, torch.Tensor, Sequence[int]], torch.Tensor]


def _hooked(patcher: ModelPatcher, sigmas: Sequence[float], edit: Edit) -> ModelPatcher:
    """A clone in whose model calls `edit(step, block, h, branches)` replaces each cross-attention output."""
    patched = patcher.clone()
    levels = torch.tensor(sigmas)

    def apply_model(
        executor: Any, x: Any, t: Any, c_concat: Any, c_crossattn: Any, control: Any, options: Any, **kwargs: Any
    ) -> Any:
        step = int((levels - float(t.max())).abs().argmin())
        with _hooks(executor.class_obj.diffusion_model.blocks, step, options["cond_or_uncond"], edit):
            return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)

    patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, apply_model)
    return patched


@contextmanager
def _hooks(blocks: Any, step: int, branches: Sequence[int], edit: Edit) -> Iterator[None]:
    handles = [
        block.cross_attn.register_forward_hook(lambda module, inputs, output, i=i: edit(step, i, output, branches))
        for i, block in enumerate(blocks)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
