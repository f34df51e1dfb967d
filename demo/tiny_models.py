"""Tiny random-weight checkpoints in the real file formats, accepted by ComfyUI's stock loaders.

Every state dict is that of ComfyUI's own model class, built with small sizes and filled with seeded random numbers, so
what is exercised is the code users run; only the pictures mean nothing. Wan and LTXV take their sizes from the
safetensors metadata, which overrides what the loader infers; Flux and the VAEs are inferred from the tensors' shapes.

Needs ComfyUI on ``sys.path`` (the command line below puts it there)::

    .venv/bin/python demo/tiny_models.py MODELS_DIR     # writes every model into its folder under MODELS_DIR
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

StateDict = dict[str, torch.Tensor]

WAN_SIZES: dict[str, Any] = {"dim": 32, "num_heads": 2, "ffn_dim": 64, "num_layers": 4, "text_dim": 4096}
LTXV_SIZES: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "cross_attention_dim": 32,
    "caption_channels": 4096,
    "num_layers": 4,
}
FLUX_SIZES: dict[str, Any] = {
    "in_channels": 16,
    "out_channels": 16,
    "vec_in_dim": 768,
    "context_in_dim": 4096,
    "hidden_size": 128,
    "mlp_ratio": 4.0,
    "num_heads": 1,
    "depth": 2,
    "depth_single_blocks": 2,
    "axes_dim": [16, 56, 56],
    "theta": 10000,
    "patch_size": 2,
    "qkv_bias": True,
    "guidance_embed": True,
    "txt_ids_dims": [],
}
LTXV_VAE_CONFIG: dict[str, Any] = {
    "_class_name": "CausalVideoAutoencoder",
    "dims": 3,
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 128,
    "blocks": [["res_x", 1], ["compress_all", 1], ["res_x", 1], ["compress_all", 1], ["compress_all", 1], ["res_x", 1]],
    "encoder_base_channels": 16,
    "decoder_base_channels": 16,
    "norm_layer": "pixel_norm",
    "patch_size": 4,
    "latent_log_var": "uniform",
    "causal_decoder": False,
}


def _wan(**sizes: Any) -> StateDict:
    import comfy.ops
    from comfy.ldm.wan.model import WanModel

    model = WanModel(**{**WAN_SIZES, **sizes}, device="meta", operations=comfy.ops.disable_weight_init)
    return dict(model.state_dict())


def _ltxv() -> StateDict:
    import comfy.ops
    from comfy.ldm.lightricks.model import LTXVModel

    model = LTXVModel(**LTXV_SIZES, device="meta", operations=comfy.ops.disable_weight_init)
    return dict(model.state_dict())


def _flux() -> StateDict:
    import comfy.ops
    from comfy.ldm.flux.model import Flux

    return dict(Flux(**FLUX_SIZES, device="meta", operations=comfy.ops.disable_weight_init).state_dict())


def _wan_vae() -> StateDict:
    from comfy.ldm.wan.vae import WanVAE

    with torch.device("meta"):
        return dict(WanVAE(dim=8, z_dim=16, temperal_downsample=[False, True, True]).state_dict())


def _ltxv_vae() -> StateDict:
    from comfy.ldm.lightricks.vae.causal_video_autoencoder import VideoVAE

    with torch.device("meta"):
        return dict(VideoVAE(config=LTXV_VAE_CONFIG).state_dict())


def _ltxv_checkpoint() -> StateDict:
    model = {f"model.diffusion_model.{name}": tensor for name, tensor in _ltxv().items()}
    return model | {f"vae.{name}": tensor for name, tensor in _ltxv_vae().items()}


@dataclass(frozen=True)
class TinyModel:
    """One file: the folder and name that a workflow asks for, its tensors' names and shapes, its metadata's config."""

    folder: str
    file_name: str
    shapes: Callable[[], StateDict]
    config: dict[str, Any] = field(default_factory=dict)


TINY_MODELS: dict[str, TinyModel] = {
    "wan21_t2v": TinyModel("diffusion_models", "wan2.1_t2v_1.3B_fp16.safetensors", _wan, {"transformer": WAN_SIZES}),
    "wan21_i2v": TinyModel(
        "diffusion_models",
        "wan2.1_i2v_480p_14B_fp16.safetensors",
        lambda: _wan(model_type="i2v", in_dim=36),
        {"transformer": WAN_SIZES},
    ),
    "wan22_ti2v": TinyModel(
        "diffusion_models",
        "wan2.2_ti2v_5B_fp16.safetensors",
        lambda: _wan(in_dim=48, out_dim=48),
        {"transformer": WAN_SIZES},
    ),
    "ltxv": TinyModel("diffusion_models", "ltxv_2b.safetensors", _ltxv, {"transformer": LTXV_SIZES}),
    "flux": TinyModel("diffusion_models", "flux1-dev.safetensors", _flux),
    "wan_vae": TinyModel("vae", "wan_2.1_vae.safetensors", _wan_vae),
    "ltxv_vae": TinyModel("vae", "ltxv_vae.safetensors", _ltxv_vae, {"vae": LTXV_VAE_CONFIG}),
    "ltxv_checkpoint": TinyModel(
        "checkpoints",
        "ltx-video-2b-v0.9.safetensors",
        _ltxv_checkpoint,
        {"transformer": LTXV_SIZES, "vae": LTXV_VAE_CONFIG},
    ),
}


def values(name: str, shape: torch.Size, seed: int) -> torch.Tensor:
    """Seeded float32 values for one tensor, scaled so that activations stay near unit size through the whole model.

    The generator depends on the name alone, so adding a tensor to a class does not change the others.
    """
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(int.from_bytes(digest[:7], "big")))
    if name.endswith("std-of-means"):
        return torch.ones(shape)
    if name.endswith("mean-of-means"):
        return torch.zeros(shape)
    if any(part in name for part in ("norm_q", "norm_k", "q_norm", "k_norm", "query_norm", "key_norm")):
        # Peaked attention: with flat attention over 512 mostly padded rows the prompt would hardly matter.
        return 2.0 + 0.05 * noise
    if name.endswith("gamma") or ("norm" in name and name.endswith((".weight", ".scale"))):
        return 1.0 + 0.05 * noise
    if name.endswith(("modulation", "scale_shift_table")):
        return 0.3 * noise
    if len(shape) < 2:
        return 0.05 * noise
    return noise / max(1, shape[1:].numel()) ** 0.5


def write_tiny_model(kind: str, path: Path, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Path:
    """Write the tiny model ``kind`` (a key of ``TINY_MODELS``) to ``path`` in ``dtype``; same seed, same file.

    Raises KeyError for an unknown kind.
    """
    from safetensors.torch import save_file

    model = TINY_MODELS[kind]
    tensors = {name: values(name, meta.shape, seed).to(dtype) for name, meta in model.shapes().items()}
    metadata = {"config": json.dumps(model.config)} if model.config else None
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    save_file(tensors, part, metadata=metadata)
    os.replace(part, path)
    return path


def write_tiny_models(models_dir: Path, kinds: list[str] | None = None, *, seed: int = 0) -> dict[str, Path]:
    """Write the named kinds (default all) into their folders under ``models_dir``; returns kind -> file."""
    return {
        kind: write_tiny_model(kind, models_dir / TINY_MODELS[kind].folder / TINY_MODELS[kind].file_name, seed=seed)
        for kind in kinds or list(TINY_MODELS)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models_dir", type=Path)
    parser.add_argument("--kinds", nargs="+", choices=sorted(TINY_MODELS), help="default: all")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
    from comfy_tree import comfyui_on_path

    comfyui_on_path()
    for kind, path in write_tiny_models(arguments.models_dir, arguments.kinds, seed=arguments.seed).items():
        print(f"{kind:16} {path.stat().st_size / 1e6:6.1f} MB  {path}")


if __name__ == "__main__":
    main()
