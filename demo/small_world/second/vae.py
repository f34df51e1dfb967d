"""The second world's VAE: ComfyUI's own LTX VAE class at small size, its encoder written from the codec's fit.

All of its work happens on a grid of 8 x 8 cells, which it turns into pixels by rearranging channels: so it is quick on
a CPU, and its pictures need not be blurred. The encoder reads one picture: stock VAEEncode would cut five frames to it.

The one nonlinearity on the encoder's path, a norm and SiLU, is undone by a large constant channel: beside it all other
channels are so small that SiLU halves them, silu(u) = u / 2 + O(u^2).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from ..runtime import use_comfyui
from .codec import CELL, CELL_COMPONENTS, CHANNELS, Codec

STEADY = 30000.0
CELL_CHANNELS = CELL_COMPONENTS + 1
CONFIG: dict[str, Any] = {
    "dims": 3,
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": CHANNELS,
    "patch_size": CELL,
    "norm_layer": "pixel_norm",
    "latent_log_var": "uniform",
    "encoder_base_channels": CELL_CHANNELS,
    "encoder_blocks": [["compress_space_res", {"multiplier": 4}]],
    "decoder_base_channels": 64,
    # from the last to the first, as the class wants them
    "decoder_blocks": [
        ["res_x", {"num_layers": 3}],
        ["compress_space", {"multiplier": 2}],
        ["compress_time", {"multiplier": 1}],
        ["compress_time", {"multiplier": 1}],
        ["res_x", {"num_layers": 2}],
    ],
    "spatial_padding_mode": "zeros",
    "causal_decoder": False,
    "timestep_conditioning": False,
}


def latent_scale() -> float:
    """Latents as nodes pass them, times this, are the latents as the model sees them."""
    use_comfyui()
    from comfy.latent_formats import HunyuanVideo

    return float(HunyuanVideo().scale_factor)


def build(codec: Codec, **config: Any) -> Any:
    """The VAE with its final encoder and an untrained decoder; `config` replaces entries of `CONFIG`."""
    use_comfyui()
    from comfy.ldm.lightricks.vae.causal_video_autoencoder import ResnetBlock3D, VideoVAE

    vae = VideoVAE(config=CONFIG | config)
    for module in vae.decoder.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.normal_(module.weight, std=1.0 / math.sqrt(module.weight[0].numel()))
            nn.init.zeros_(module.bias)
    for module in vae.decoder.modules():
        if isinstance(module, ResnetBlock3D):
            module.conv2.conv.weight.data.mul_(0.1)
    vae.decoder.conv_out.conv.weight.data.mul_(0.1)
    write_encoder(vae, codec)
    return vae


@torch.no_grad()
def write_encoder(vae: Any, codec: Codec) -> None:
    """Write the codec's latent frame 0 into the encoder, in place. Only the newest temporal tap of a kernel is used."""
    encoder = vae.encoder
    for parameter in encoder.parameters():
        parameter.zero_()
    conv = encoder.conv_in.conv
    conv.weight[:CELL_COMPONENTS, :, -1, 1, 1] = codec.cell
    conv.bias[:CELL_COMPONENTS] = -codec.cell @ codec.cell_mean
    conv.bias[CELL_COMPONENTS] = STEADY
    # After the norm a channel is itself divided by STEADY / sqrt(all channels / steady ones), and SiLU halves it.
    unit = 2.0 * STEADY * math.sqrt(1.0 / CELL_CHANNELS)
    last, first = encoder.conv_out.conv, codec.first.shape[1]
    weight = codec.gain[0][:, None] * codec.first
    last.weight[:CHANNELS, :first, -1, 1, 1] = unit * weight
    last.bias[:CHANNELS] = -codec.gain[0] * codec.mean[0]
    statistics = vae.per_channel_statistics
    statistics.get_buffer("std-of-means").fill_(latent_scale())
    statistics.get_buffer("mean-of-means").zero_()
