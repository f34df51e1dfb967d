"""A Wan model of the real 1.3B shape with random weights, and its calls as a sampler run makes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from comfy_tree import comfyui_on_path

# With PyTorch's attention the unsteered call is fastest, so that the relative cost of a hook is highest.
comfyui_on_path("--use-pytorch-cross-attention")

SHAPE: dict[str, Any] = {
    "dim": 1536,
    "ffn_dim": 8960,
    "num_heads": 12,
    "num_layers": 30,
    "freq_dim": 256,
    "text_dim": 4096,
    "in_dim": 16,
    "out_dim": 16,
}
TEXT_TOKENS = 512
# Wan runs in half precision, in which a block is also fastest relative to a hook.
DTYPE = torch.bfloat16

Call = Callable[[], torch.Tensor]


def build(layers: int = SHAPE["num_layers"], seed: int = 0) -> Any:
    """A ModelPatcher around ComfyUI's own WAN21 with `layers` blocks, as the stock loader would give it."""
    import comfy.model_base
    import comfy.supported_models
    from comfy.model_patcher import ModelPatcher

    config = comfy.supported_models.WAN21_T2V(
        {"image_model": "wan2.1", "model_type": "t2v", **SHAPE, "num_layers": layers, "dtype": DTYPE}
    )
    config.set_inference_dtype(DTYPE, None)
    model = comfy.model_base.WAN21(config, device=torch.device("cpu"))
    torch.manual_seed(seed)
    for parameter in model.diffusion_model.parameters():
        parameter.uniform_(-0.03, 0.03)
    cpu = torch.device("cpu")
    return ModelPatcher(model, load_device=cpu, offload_device=cpu)


def conditioning(seed: int) -> list[list[Any]]:
    """Text states as Wan's encoder gives them: 512 rows, the last ones zero."""
    states = torch.randn(1, TEXT_TOKENS, SHAPE["text_dim"], generator=torch.Generator().manual_seed(seed))
    states[:, 40:] = 0
    return [[states, {}]]


def in_sampler_run(patcher: Any, latent: tuple[int, ...], then: Callable[[Call], None]) -> None:
    """Open a sampler run on `patcher`, and hand `then` a function that makes one model call inside it.

    latent: (16, T, H, W). At cfg 1 a call has one sample, the least work relative to the cost of a hook.
    """
    import comfy.samplers

    def sampler(
        model: Any, x: torch.Tensor, sigmas: torch.Tensor, extra_args: dict[str, Any], **_: Any
    ) -> torch.Tensor:
        then(lambda: model(x, sigmas[0] * x.new_ones(len(x)), **extra_args))
        return x

    guider = comfy.samplers.CFGGuider(patcher)
    guider.set_conds(conditioning(1), conditioning(2))
    guider.set_cfg(1.0)
    noise = torch.randn(1, *latent, generator=torch.Generator().manual_seed(3))
    sigmas = torch.tensor([0.9, 0.8])
    guider.sample(noise, torch.zeros_like(noise), comfy.samplers.KSAMPLER(sampler), sigmas, disable_pbar=True, seed=0)
