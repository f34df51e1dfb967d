"""The small VAE's encoder in closed form: principal components of 8 x 8 patches, written into Wan's own encoder.

Training Wan's convolutional encoder takes hours on two cores; its linear part alone is already a good patch codec.
Every residual branch is zero, so the strided convolutions act as space-to-depth followed by a projection, and
the two temporal convolutions as a projection of a frame pair. The one nonlinearity on the path, RMS norm and SiLU of
the head, is undone exactly enough by a large constant channel (the norm becomes a constant) and by keeping each
component beside its negative: silu(x) - silu(-x) = x.

Frame 0 gives latent frame 0: the 16 leading components of its patches. Latent frame 1 spends its 16 components on what
of frames 1-4 cannot be predicted linearly from latent frame 0 (reduced-rank regression, Izenman 1975).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

LATENT = 16
STEADY = 300.0
AVERAGED = 20


def principal(rows: torch.Tensor, count: int) -> torch.Tensor:
    """The `count` leading principal directions (count, d) of rows (n, d), by second moments about the mean."""
    centred = rows - rows.mean(0)
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    return vectors.flip(1)[:, :count].T


def blocks_of(frames: torch.Tensor) -> torch.Tensor:
    """Space to depth: (..., c, h, w) -> (..., 4 c, h / 2, w / 2), channel order (c, dy, dx)."""
    return torch.nn.functional.pixel_unshuffle(frames, 2)


def rows_of(features: torch.Tensor) -> torch.Tensor:
    """(..., c, h, w) -> (everything else, c)."""
    return features.movedim(-3, -1).reshape(-1, features.shape[-3])


def project(features: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Apply matrix (k, c) to the channel axis of (..., c, h, w)."""
    return torch.einsum("kc,...chw->...khw", matrix, features)


def fit_encoder(videos: np.ndarray) -> dict[str, torch.Tensor]:
    """The projections of each stage from videos uint8 (n, 5, 64, 64, 3).

    Returns colour (3,) the mean colour; space_1 (32, 48); time_1 (32, 2, 32) for a frame pair; space_2 (47, 128) whose
    first 16 rows are latent frame 0; time_2 (16, 3, 47) for (frame 0, first pair, second pair): latent frame 1.
    """
    frames = torch.from_numpy(videos).double().permute(0, 1, 4, 2, 3) / 127.5 - 1.0
    colour = frames.mean((0, 1, 3, 4))
    half = blocks_of(frames - colour[:, None, None])
    quarter = blocks_of(half)
    space_1 = principal(rows_of(quarter), 32)
    spatial = project(quarter, space_1)

    # A pair becomes its mean in the leading components and its difference in fewer: the same meaning as in frame 0.
    time_1 = torch.zeros(32, 2, 32, dtype=torch.float64)
    for k in range(AVERAGED):
        time_1[k, :, k] = 0.5
    for k in range(32 - AVERAGED):
        time_1[AVERAGED + k, 0, k], time_1[AVERAGED + k, 1, k] = -0.5, 0.5
    pairs = torch.einsum("kpc,nqpchw->nqkhw", time_1, spatial[:, 1:].unflatten(1, (2, 2)))

    first, rest = blocks_of(spatial[:, 0]), blocks_of(pairs)
    leading = principal(rows_of(first), LATENT)
    remainder = rows_of(rest)
    others = principal(remainder - remainder @ leading.T @ leading, 31)
    space_2 = torch.cat([leading, others])
    shown, moving = project(first, space_2), project(rest, space_2)

    known = rows_of(shown[:, :LATENT])
    inputs = torch.cat([rows_of(shown), rows_of(moving[:, 0]), rows_of(moving[:, 1])], 1)
    target = rows_of(torch.nn.functional.pixel_unshuffle(frames[:, 1:].flatten(1, 2), 8))
    target, inputs = _without(target, known), _without(inputs, known)
    ridge = 1e-6 * inputs.square().sum() / inputs.shape[1] * torch.eye(inputs.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(inputs.T @ inputs + ridge, inputs.T @ target)
    fitted = inputs @ weights
    leading_targets = principal(fitted, LATENT)
    time_2 = (weights @ leading_targets.T).T.reshape(LATENT, 3, 47)
    return {"colour": colour, "space_1": space_1, "time_1": time_1, "space_2": space_2, "time_2": time_2}


def _without(rows: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Rows minus their least-squares prediction from `known`, both centred."""
    rows, known = rows - rows.mean(0), known - known.mean(0)
    return rows - known @ torch.linalg.lstsq(known, rows).solution


@contextmanager
def linear_encoder(vae: Any) -> Iterator[None]:
    """Skip the encoder's residual branches: they are exactly zero, and skipping them is ten times faster."""
    blocks = [m for m in vae.encoder.modules() if hasattr(m, "residual")]
    for block in blocks:
        block.forward = lambda x, *_, shortcut=block.shortcut, **__: shortcut(x)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


@torch.no_grad()
def write_encoder(vae: Any, fit: dict[str, torch.Tensor]) -> None:
    """Write the fitted projections into the encoder of a `WanVAE` of dim 16, in place."""
    encoder = vae.encoder
    for parameter in (*encoder.parameters(), *vae.conv1.parameters()):
        parameter.zero_()
    for name, parameter in encoder.named_parameters():
        if name.endswith("gamma"):
            parameter.fill_(1.0)
    resamples = [m for m in encoder.downsamples if hasattr(m, "resample")]
    shortcuts = [m.shortcut for m in encoder.downsamples if hasattr(getattr(m, "shortcut", None), "weight")]
    for channel in range(3):
        encoder.conv1.weight[channel, channel, -1, 1, 1] = 1.0
        encoder.conv1.bias[channel] = -fit["colour"][channel]
        for dy in range(2):
            for dx in range(2):
                resamples[0].resample[1].weight[channel * 4 + dy * 2 + dx, channel, dy, dx] = 1.0
    for shortcut in shortcuts:
        for channel in range(shortcut.weight.shape[1]):
            shortcut.weight[channel, channel] = 1.0

    middle, last = resamples[1], resamples[2]
    middle.resample[1].weight[:, :12, :2, :2] = fit["space_1"].unflatten(1, (12, 2, 2)).float()
    middle.time_conv.weight[:, :, 1:, 0, 0] = fit["time_1"].transpose(1, 2).float()
    space_2 = fit["space_2"].unflatten(1, (32, 2, 2)).float()
    spread = last.resample[1].weight
    spread[:16, :32, :2, :2], spread[16:32, :32, :2, :2] = space_2[:16], -space_2[:16]
    spread[32:63, :32, :2, :2] = space_2[16:]
    last.resample[1].bias[63] = STEADY
    carried = torch.zeros(LATENT, 64, 3)
    time_2 = fit["time_2"].transpose(1, 2).float()
    carried[:, :16], carried[:, 32:63] = time_2[:, :16], time_2[:, 16:]
    last.time_conv.weight[:16, :, :, 0, 0], last.time_conv.weight[16:32, :, :, 0, 0] = carried, -carried
    last.time_conv.bias[63] = STEADY

    # After the norm the constant channel is about sqrt(64) and the rest is scaled by sqrt(64) / STEADY.
    for channel in range(LATENT):
        encoder.head[-1].weight[channel, channel, -1, 1, 1] = STEADY / 8.0
        encoder.head[-1].weight[channel, channel + 16, -1, 1, 1] = -STEADY / 8.0
        vae.conv1.weight[channel, channel] = 1.0
    vae.conv1.bias[LATENT:] = -12.0
