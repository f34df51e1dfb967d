"""Training the small VAE's decoder: which of its weights are used, and a fast path that computes the same function.

Wan's decoder spends nearly all its time in 3 x 3 x 3 convolutions at full resolution. Motion is already resolved at a
quarter of it, so at half and full resolution only the newest temporal tap is trained, and one residual branch
each; the other weights stay zero. While training, zero weights are not multiplied.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

# Indices in `decoder.upsamples`: three residual blocks and a resampling for each of the four resolutions.
FLAT_FROM = 8
SILENT = (9, 10, 13, 14)


def parts(vae: Any) -> tuple[list[nn.Module], list[nn.Module]]:
    """(convolutions that use only their newest temporal tap, residual blocks whose branch is zero)."""
    layers = vae.decoder.upsamples
    silent = [layers[i] for i in SILENT]
    active = [layer for i, layer in enumerate(layers) if i >= FLAT_FROM and i not in SILENT]
    flat = [m for layer in (*active, vae.decoder.head) for m in layer.modules() if isinstance(m, nn.Conv3d)]
    return flat, silent


@torch.no_grad()
def prune(vae: Any) -> None:
    """Zero what is not trained, in place."""
    flat, silent = parts(vae)
    for convolution in flat:
        convolution.weight[:, :, :-1] = 0.0
    for block in silent:
        block.residual[-1].weight.zero_()
        block.residual[-1].bias.zero_()


@contextmanager
def fast_path(vae: Any) -> Iterator[None]:
    """Compute the pruned decoder without its zeros. Gradients reach only the weights that are used."""
    flat, silent = parts(vae)
    for convolution in flat:
        convolution.forward = _newest_tap_only(convolution)
    for block in silent:
        block.forward = lambda x, feat_cache=None, feat_idx=[0], final=False, block=block: _skip(block, x, feat_idx)
    try:
        yield
    finally:
        for module in (*flat, *silent):
            del module.forward


def _newest_tap_only(convolution: Any) -> Any:
    def forward(x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        batch, channels, time, height, width = x.shape
        folded = x.transpose(1, 2).reshape(batch * time, channels, height, width)
        out = F.conv2d(folded, convolution.weight[:, :, -1], convolution.bias, padding=convolution.padding[1:])
        return out.unflatten(0, (batch, time)).transpose(1, 2)

    return forward


def _skip(block: Any, x: torch.Tensor, feat_idx: list[int]) -> torch.Tensor:
    feat_idx[0] += sum(isinstance(m, nn.Conv3d) for m in block.residual)
    return block.shortcut(x)
