"""ComfyUI's own HunyuanVideo class at small size, and its forward pass for training.

The class writes into its hidden states in place, which autograd forbids, so training computes the same function without
(`velocity`; a test compares the two). Image-to-video is HunyuanVideo's own "token replace": the start frame's latents
stand in latent frame 0, and their tokens are modulated as at timestep 0.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..runtime import use_comfyui
from .codec import CHANNELS
from .text import WIDTH

SIZES: dict[str, Any] = {
    "in_channels": CHANNELS,
    "out_channels": CHANNELS,
    "context_in_dim": WIDTH,
    "hidden_size": 256,
    "num_heads": 2,
    "depth": 2,
    "depth_single_blocks": 5,
}
POOLED = 768
# What ComfyUI's detection gives for a HunyuanVideo file of such weights.
FIXED: dict[str, Any] = {
    "mlp_ratio": 4.0,
    "axes_dim": [16, 56, 56],
    "theta": 256,
    "patch_size": [1, 1, 1],
    "vec_in_dim": POOLED,
    "vision_in_dim": None,
    "qkv_bias": True,
    "guidance_embed": False,
    "byt5": False,
    "meanflow": False,
    "meanflow_sum": False,
    "use_cond_type_embedding": False,
}


def build(**sizes: Any) -> Any:
    """An initialised `HunyuanVideo` in float32; `sizes` replace those of `SIZES`. Gates and output start at zero."""
    use_comfyui()
    import comfy.model_management
    from comfy.ldm.hunyuan_video.model import HunyuanVideo

    comfy.model_management.in_training = True  # plain torch in place of inference kernels
    model = HunyuanVideo(**FIXED, **SIZES | sizes, operations=nn, device="cpu", dtype=torch.float32)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    for name, parameter in model.named_parameters():
        if "_mod.lin" in name or "modulation" in name or name.startswith("final_layer.linear"):
            nn.init.zeros_(parameter)
    return model


def velocity(model: Any, latents: torch.Tensor, sigma: torch.Tensor, text: torch.Tensor, i2v: torch.Tensor) -> Any:
    """What `HunyuanVideo` computes, with gradients.

    latents (b, channels, t, h, w); sigma (b,) in [0, 1]; text (b, n, width); i2v bool (b,): whether latent frame 0 is a
    start frame. Returns the velocity, of the latents' shape.
    """
    from comfy.ldm.flux.layers import timestep_embedding

    frame = latents.shape[3] * latents.shape[4]
    time = sigma * 1000.0
    # HunyuanVideo's second text encoder, a pooled CLIP, is not used: its vector is zero.
    pooled = model.vector_in(latents.new_zeros(1, POOLED))
    now = pooled + model.time_in(timestep_embedding(time, 256, time_factor=1.0))
    still = pooled + model.time_in(timestep_embedding(torch.zeros_like(time), 256, time_factor=1.0))
    vec = torch.stack([still, now], 1)
    image, words = model.img_in(latents), model.txt_in(text, time, None)
    ids = torch.cat([latents.new_zeros(1, words.shape[1], 3), model.img_ids(latents[:1])], 1)
    rotation = model.pe_embedder(ids)
    # ComfyUI counts the start frame's tokens from the first of the row: in single blocks the words stand there.
    shown = (torch.arange(image.shape[1] + words.shape[1]) < frame).float()[None, :, None] * i2v[:, None, None]
    for block in model.double_blocks:
        image, words = _double(block, image, words, vec, rotation, shown[:, : image.shape[1]])
    row = torch.cat([words, image], 1)
    for block in model.single_blocks:
        row = _single(block, row, vec, rotation, shown)
    last = model.final_layer
    shift, scale = last.adaLN_modulation(vec).chunk(2, -1)
    image = _modulate(last.norm_final(row[:, words.shape[1] :]), scale, shift, shown[:, : image.shape[1]])
    return last.linear(image).transpose(1, 2).reshape_as(latents)


def _choose(rows: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
    """Each token's row of (still, now): rows (b, 2, d), shown (b, n, 1)."""
    return rows[:, 1:] + shown * (rows[:, :1] - rows[:, 1:])


def _modulate(x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
    return x * (1 + _choose(scale, shown)) + _choose(shift, shown)


def _heads(attention: Any, qkv: torch.Tensor, heads: int) -> tuple[torch.Tensor, ...]:
    """Query, key, value (b, heads, n, d); queries and keys normalised in float32, as at inference."""
    query, key, value = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    return attention.query_norm(query.float()), attention.key_norm(key.float()), value


def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    from comfy.ldm.flux.math import apply_rope

    query, key = apply_rope(query, key, rotation)
    out = F.scaled_dot_product_attention(query.to(value), key.to(value), value)
    return out.transpose(1, 2).flatten(2)


def _double(
    block: Any,
    image: torch.Tensor,
    words: torch.Tensor,
    vec: torch.Tensor,
    rotation: torch.Tensor,
    shown: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A block with weights of its own for image and words, and one attention over both."""
    nowhere = torch.zeros_like(shown[:, :1])
    streams = (
        (image, shown, block.img_mod, block.img_norm1, block.img_attn, block.img_norm2, block.img_mlp),
        (words, nowhere, block.txt_mod, block.txt_norm1, block.txt_attn, block.txt_norm2, block.txt_mlp),
    )
    mods = [mod(vec) for _, _, mod, *_ in streams]
    heads = [
        _heads(attn.norm, attn.qkv(_modulate(norm(x), mod[0].scale, mod[0].shift, where)), block.num_heads)
        for (x, where, _, norm, attn, _, _), mod in zip(streams, mods, strict=True)
    ]
    query, key, value = (torch.cat([of_words, of_image], 2) for of_image, of_words in zip(*heads, strict=True))
    read = _attend(query, key, value, rotation)
    parts = read[:, words.shape[1] :], read[:, : words.shape[1]]
    out = []
    for (x, where, _, _, attn, norm, mlp), (first, second), part in zip(streams, mods, parts, strict=True):
        x = x + attn.proj(part) * _choose(first.gate, where)
        x = x + mlp(_modulate(norm(x), second.scale, second.shift, where)) * _choose(second.gate, where)
        out.append(x)
    return out[0], out[1]


def _single(
    block: Any, row: torch.Tensor, vec: torch.Tensor, rotation: torch.Tensor, shown: torch.Tensor
) -> torch.Tensor:
    """A block that treats words and image alike, attention beside the feed-forward part."""
    mod, _ = block.modulation(vec)
    joined = block.linear1(_modulate(block.pre_norm(row), mod.scale, mod.shift, shown))
    qkv, mlp = joined.split([3 * block.hidden_size, block.mlp_hidden_dim_first], -1)
    read = _attend(*_heads(block.norm, qkv, block.num_heads), rotation)
    return row + block.linear2(torch.cat([read, block.mlp_act(mlp)], 2)) * _choose(mod.gate, shown)
