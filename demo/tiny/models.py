"""Tiny random-weight checkpoints in the real file formats, accepted by ComfyUI's stock loaders.

Every state dict is that of ComfyUI's own model class, built with small sizes and filled with seeded random numbers, so
what is exercised is the code users run; only the pictures mean nothing. Wan and LTXV take their sizes from the
safetensors metadata, which overrides what the loader infers; Flux and the VAEs are inferred from the tensors' shapes.
Text encoders do not shrink through the stock loaders: `dev_nodes` has stand-ins for them.

Needs ComfyUI to be importable (the command line below sees to it)::

    .venv/bin/python tools/start.py tiny.models MODELS_DIR     # writes every model into its folder under MODELS_DIR
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import json
import os
from collections.abc import Callable, Mapping
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
LTX2_SIZES: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "audio_num_attention_heads": 2,
    "audio_attention_head_dim": 8,
    "cross_attention_dim": 32,
    "audio_cross_attention_dim": 16,
    "caption_channels": 32,
    "num_layers": 4,
    "connector_num_attention_heads": 1,
    "connector_attention_head_dim": 32,
    "connector_num_layers": 1,
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

LTX2_AUDIO_CONFIG: dict[str, Any] = {
    "audio_vae": {
        "model": {
            "params": {
                "ddconfig": {
                    "double_z": True,
                    "mel_bins": 64,
                    "z_channels": 8,
                    "resolution": 256,
                    "in_channels": 2,
                    "out_ch": 2,
                    "ch": 8,
                    "ch_mult": [1, 2, 4],
                    "num_res_blocks": 1,
                    "attn_resolutions": [],
                    "mid_block_add_attention": False,
                    "norm_type": "pixel",
                    "causality_axis": "height",
                },
                "sampling_rate": 16000,
            }
        },
        "preprocessing": {"stft": {"filter_length": 1024, "hop_length": 160}},
    },
    "vocoder": {"upsample_initial_channel": 32, "resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1, 3, 5]]},
}
LTX2_UPSCALER_CONFIG: dict[str, Any] = {"in_channels": 128, "mid_channels": 32, "num_blocks_per_stage": 1, "dims": 3}
LTX2_LORA_RANK = 4


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


def _wan22_vae() -> StateDict:
    """The small autoencoder for these latents that the same loader takes: the large one has no sizes to choose."""
    from comfy.taesd.taehv import TAEHV

    with torch.device("meta"):
        return dict(TAEHV(latent_channels=48, latent_format=None).state_dict())


def _flux_vae() -> StateDict:
    """As above, for Flux."""
    from comfy.taesd.taesd import TAESD

    with torch.device("meta"):
        return dict(TAESD(latent_channels=16).state_dict())


def _ltx2() -> StateDict:
    import comfy.ops
    from comfy.ldm.lightricks.av_model import LTXAVModel

    model = LTXAVModel(**LTX2_SIZES, device="meta", operations=comfy.ops.disable_weight_init)
    return dict(model.state_dict())


def _ltx2_audio_vae() -> StateDict:
    from comfy.ldm.lightricks.vae.causal_audio_autoencoder import CausalAudioAutoencoder
    from comfy.ldm.lightricks.vocoders.vocoder import Vocoder

    with torch.device("meta"):
        parts = {
            name: build(LTX2_AUDIO_CONFIG[name])
            for name, build in {"audio_vae": CausalAudioAutoencoder, "vocoder": Vocoder}.items()
        }
    return {f"{part}.{name}": tensor for part, module in parts.items() for name, tensor in module.state_dict().items()}


def _ltx2_checkpoint() -> StateDict:
    """Video and sound model, VAE, audio VAE and vocoder in one file, as LTX-2 comes."""
    model = {f"model.diffusion_model.{name}": tensor for name, tensor in _ltx2().items()}
    return model | {f"vae.{name}": tensor for name, tensor in _ltxv_vae().items()} | _ltx2_audio_vae()


def _ltx2_upscaler() -> StateDict:
    import comfy.ops
    from comfy.ldm.lightricks.latent_upsampler import LatentUpsampler

    build = LatentUpsampler.from_config
    takes_operations = "operations" in inspect.signature(build).parameters  # ComfyUI 0.24 does not
    with torch.device("meta"):
        options = {"operations": comfy.ops.disable_weight_init} if takes_operations else {}
        return dict(build(LTX2_UPSCALER_CONFIG, **options).state_dict())


def _ltx2_lora() -> StateDict:
    """A LoRA of the first block's attention."""
    width = LTX2_SIZES["num_attention_heads"] * LTX2_SIZES["attention_head_dim"]
    name = "diffusion_model.transformer_blocks.0.attn1.to_q"
    down, up = (LTX2_LORA_RANK, width), (width, LTX2_LORA_RANK)
    shapes: Mapping[str, tuple[int, int]] = {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


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
    "wan22_high_noise": TinyModel(
        "diffusion_models", "wan2.2_t2v_high_noise_14B_fp8_scaled.safetensors", _wan, {"transformer": WAN_SIZES}
    ),
    "wan22_low_noise": TinyModel(
        "diffusion_models", "wan2.2_t2v_low_noise_14B_fp8_scaled.safetensors", _wan, {"transformer": WAN_SIZES}
    ),
    "ltxv": TinyModel("diffusion_models", "ltxv_2b.safetensors", _ltxv, {"transformer": LTXV_SIZES}),
    "flux": TinyModel("diffusion_models", "flux1-dev.safetensors", _flux),
    "wan_vae": TinyModel("vae", "wan_2.1_vae.safetensors", _wan_vae),
    "wan22_vae": TinyModel("vae", "wan2.2_vae.safetensors", _wan22_vae),
    "flux_vae": TinyModel("vae", "ae.safetensors", _flux_vae),
    "ltxv_vae": TinyModel("vae", "ltxv_vae.safetensors", _ltxv_vae, {"vae": LTXV_VAE_CONFIG}),
    "ltxv_checkpoint": TinyModel(
        "checkpoints",
        "ltx-video-2b-v0.9.safetensors",
        _ltxv_checkpoint,
        {"transformer": LTXV_SIZES, "vae": LTXV_VAE_CONFIG},
    ),
    "ltxv_i2v_checkpoint": TinyModel(
        "checkpoints",
        "ltx-video-2b-v0.9.5.safetensors",
        _ltxv_checkpoint,
        {"transformer": LTXV_SIZES, "vae": LTXV_VAE_CONFIG},
    ),
    "ltx2_checkpoint": TinyModel(
        "checkpoints",
        "ltx-2-19b-dev-fp8.safetensors",
        _ltx2_checkpoint,
        {"transformer": LTX2_SIZES, "vae": LTXV_VAE_CONFIG, **LTX2_AUDIO_CONFIG},
    ),
    "ltx2_upscaler": TinyModel(
        "latent_upscale_models",
        "ltx-2-spatial-upscaler-x2-1.0.safetensors",
        _ltx2_upscaler,
        LTX2_UPSCALER_CONFIG,
    ),
    "ltx2_lora": TinyModel("loras", "ltx-2-19b-distilled-lora-384.safetensors", _ltx2_lora),
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

    from comfy_tree import comfyui_on_path

    comfyui_on_path()
    for kind, path in write_tiny_models(arguments.models_dir, arguments.kinds, seed=arguments.seed).items():
        print(f"{kind:16} {path.stat().st_size / 1e6:6.1f} MB  {path}")


if __name__ == "__main__":
    main()
