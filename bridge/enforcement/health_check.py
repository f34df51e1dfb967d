"""One tiny steered run through core's own sampler, before a guarded server serves: does steering act at all?

The model is a Wan of a few thousand random weights, made on the spot; the policy steers its first block by a known
direction. Two strengths must give two results, each moved by what was asked for.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...guardrail.policy import Policy, Rule
from ...guardrail.policy_settings import PolicySettings
from ...safety_steering.errors import NotSteeredError
from ...safety_steering.hook_point import HookPoint
from ...safety_steering.steering.interventions import Intervention
from ...safety_steering.vectors.vector import Direction, HookPointDirections, SafetyVector, VectorInfo
from ..models.model_map import block_space, read_shape
from .jobs.flow import Flow, Origins
from .jobs.job import Job

if TYPE_CHECKING:
    from .jobs.job_guard import JobGuard

SIZES = {"dim": 32, "num_heads": 2, "ffn_dim": 32, "num_layers": 2, "text_dim": 16}
HOOK_POINT = HookPoint("block.blocks.0.image")
STRENGTHS = (1.0, 2.0)
GAP = 4.0
TOLERANCE = 0.02


def check_health(jobs: JobGuard) -> None:
    """Raise NotSteeredError unless the guardrail's own hooks steer a run of the stock sampler as they are told."""
    with torch.inference_mode():
        patcher = _tiny_model()
        results = {}
        for strength in STRENGTHS:
            job = Job("health check", {}, _policy(patcher, strength), Flow(None, Origins()))
            jobs.job = job
            try:
                results[strength] = _sample(patcher)
            finally:
                jobs.job = None
            hooks = [hook for trace in job.traces for call in trace.calls for hook in call.hooks]
            moved = [gaps for hook in hooks for gaps in hook.shift_gaps.values()]
            if not moved or any(abs(gaps - strength) > TOLERANCE * strength for gaps in moved):
                raise NotSteeredError(f"The health check asked for {strength:g} gaps and got {moved}. {_ADVICE}")
    one, two = results.values()
    if torch.equal(one, two):
        raise NotSteeredError(f"The health check gave one result for two strengths. {_ADVICE}")


_ADVICE = "Steering does not act in this ComfyUI; use the version that this pack was tested with."


def _tiny_model() -> Any:
    import comfy.ops
    import comfy.sd
    from comfy.ldm.wan.model import WanModel

    shapes = WanModel(**SIZES, device="meta", operations=comfy.ops.disable_weight_init).state_dict()
    generator = torch.Generator().manual_seed(0)
    weights = {name: 0.1 * torch.randn(tensor.shape, generator=generator) for name, tensor in shapes.items()}
    return comfy.sd.load_diffusion_model_state_dict(weights, metadata={"config": json.dumps({"transformer": SIZES})})


def _policy(patcher: Any, strength: float) -> Policy:
    """A policy for this model alone, with a random unit direction."""
    shape = read_shape(patcher.model.diffusion_model)
    row = torch.randn(1, shape.width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ones = torch.ones(1)
    direction = Direction((row / row.norm()).float(), GAP * ones, 0 * ones, ones, ones)
    point = HookPointDirections(
        space=block_space(shape, HOOK_POINT),
        sigma_edges=torch.tensor([0.0, 1.0]),
        token_norm=ones,
        categories={"health": direction},
    )
    info = VectorInfo("native", "estimated", shape.family.name, shape.name, block_counts=shape.block_counts)
    sha256 = "0" * 64
    rule = {"match": {"family": shape.family.name}, "vector": "health", "sha256": sha256, "strength": strength}
    settings = PolicySettings.model_validate({"version": 1, "rules": [rule]})
    vector = SafetyVector({HOOK_POINT: point}, info)
    loaded = Rule("health check", settings.rules[0], vector, (HOOK_POINT,), Intervention("add", "none"), strength)
    return Policy(Path(), sha256, settings, (loaded,), Path())


def _sample(patcher: Any) -> torch.Tensor:
    import comfy.model_management
    import comfy.samplers

    latent = torch.zeros(1, 16, 1, 4, 4)
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(2))
    text = torch.randn(1, 4, SIZES["text_dim"], generator=torch.Generator().manual_seed(3))
    guider = comfy.samplers.CFGGuider(patcher)
    guider.set_conds([[text, {}]], [[-text, {}]])
    guider.set_cfg(2.0)
    sampler = comfy.samplers.ksampler("euler")
    sigmas = torch.tensor([1.0, 0.5, 0.0])
    samples: torch.Tensor = guider.sample(noise, latent, sampler, sigmas, disable_pbar=True, seed=0)
    comfy.model_management.unload_all_models()
    return samples
