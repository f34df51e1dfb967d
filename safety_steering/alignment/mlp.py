"""A network with one hidden GELU layer, T(z) = gelu(z A + a) B + b.

It is trained with AdamW on the mean squared error and stopped at the least error on a fifth of the rows. It predicts
the leading 256 principal axes of the target at most, because a few hundred anchors do not determine the others.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn

from ..linear_algebra import spectrum
from .maps import SpaceMap, inner_split

MOST_AXES = 256
BATCH = 64
EPOCHS = 300
PATIENCE = 20
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 1e-2


def fit_mlp(
    x: torch.Tensor, y: torch.Tensor, *, hidden: int, seed: int = 0, tick: Callable[[], None] = lambda: None
) -> SpaceMap:
    """The network from x (n, D_s) to y (n, D_t), the same for the same seed.

    tick: called every epoch; what it raises ends the training. `chosen` has the number of epochs and of axes.
    """
    # ComfyUI executes nodes in inference mode, whose tensors carry no gradient
    with torch.inference_mode(False), torch.enable_grad():
        x, y = x.detach().clone().float(), y.detach().clone().double()
        axes = spectrum(y).right[:, :MOST_AXES]
        return _train(x, (y @ axes).float(), axes, hidden, seed, tick)


def _train(
    x: torch.Tensor, y: torch.Tensor, axes: torch.Tensor, hidden: int, seed: int, tick: Callable[[], None]
) -> SpaceMap:
    generator = torch.Generator().manual_seed(seed)
    network = _network(x.shape[1], hidden, y.shape[1], generator)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    fit, validation = inner_split(len(x), seed)
    best, least, best_epoch = copy.deepcopy(network.state_dict()), float("inf"), 0
    for epoch in range(1, EPOCHS + 1):
        tick()
        for rows in torch.split(fit[torch.randperm(len(fit), generator=generator)], BATCH):
            optimizer.zero_grad()
            nn.functional.mse_loss(network(x[rows]), y[rows]).backward()  # type: ignore[no-untyped-call]  # torch has no types for it
            optimizer.step()
        with torch.no_grad():
            error = float(nn.functional.mse_loss(network(x[validation]), y[validation]))
        if error < least:
            best, least, best_epoch = copy.deepcopy(network.state_dict()), error, epoch
        elif epoch - best_epoch >= PATIENCE:
            break
    first, first_bias, second, second_bias = (best[name] for name in ("0.weight", "0.bias", "2.weight", "2.bias"))
    tensors = {
        "first": first.T.contiguous(),
        "first_bias": first_bias,
        "second": (second.T.double() @ axes.T).float(),
        "second_bias": (second_bias.double() @ axes.T).float(),
    }
    return SpaceMap("mlp", tensors, {"epochs": float(best_epoch), "axes": float(axes.shape[1])})


def _network(width: int, hidden: int, out: int, generator: torch.Generator) -> nn.Sequential:
    network = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, out))
    with torch.no_grad():
        for layer in (network[0], network[2]):
            assert isinstance(layer, nn.Linear)
            layer.weight.normal_(0, layer.in_features**-0.5, generator=generator)
            layer.bias.zero_()
    return network
