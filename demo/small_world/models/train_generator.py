"""Train ComfyUI's own WanModel class, small, on the small world: one model for T2V and I2V.

    python tools/start.py small_world.models.train_generator       (resumes after a kill)

Rectified flow (Liu et al. 2023, Lipman et al. 2023): x_s = (1 - s) x + s noise, target noise - x, with s drawn
uniformly and then shifted, s <- shift s / (1 + (shift - 1) s), as `comfy.model_sampling.time_snr_shift` does.
The 20 extra input channels are Wan's I2V layout: 4 of mask (1 = shown) and 16 of image latents, all zero for T2V.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..files import load_checkpoint, save_checkpoint, save_weights
from ..runtime import GENERATOR_FILE, use_comfyui
from .parallel import average_gradients, run_on_all_cores
from .prepare_data import Samples, load_samples
from .text import WIDTH

SHIFT = 3.0
CONFIG: dict[str, Any] = {
    "model_type": "t2v",
    "in_dim": 36,
    "out_dim": 16,
    "dim": 160,
    "ffn_dim": 640,
    "freq_dim": 256,
    "text_dim": WIDTH,
    "num_heads": 5,
    "num_layers": 8,
    "patch_size": [1, 2, 2],
}
PROMPT_DROPOUT = 0.1
PEAK_RATE = 1e-3
AVERAGING = 0.998
BATCH = 32


def build() -> nn.Module:
    """An initialised `WanModel` ready for autograd: plain-torch rotary and attention in place of inference kernels."""
    use_comfyui()
    import comfy.ldm.wan.model
    import comfy.model_management
    from comfy.ldm.modules.attention import attention_pytorch

    comfy.model_management.in_training = True
    comfy.ldm.wan.model.optimized_attention = attention_pytorch
    model = comfy.ldm.wan.model.WanModel(**CONFIG, operations=nn, device="cpu", dtype=torch.float32)
    for name, parameter in model.named_parameters():
        if name.endswith("modulation"):
            nn.init.normal_(parameter, std=CONFIG["dim"] ** -0.5)
    nn.init.zeros_(model.head.head.weight)
    return model


def draw_batch(samples: Samples, rng: np.random.Generator, batch: int) -> tuple[torch.Tensor, ...]:
    """A random batch: latents (b, 16, 2, 8, 8), extra channels (b, 20, 2, 8, 8), text (b, 24, WIDTH), sigma (b,)."""
    rows = np.sort(rng.integers(len(samples), size=batch))
    latents = torch.from_numpy(samples.latents[rows]).float()
    start = torch.from_numpy(samples.start[rows]).float()
    mask = torch.zeros(batch, 4, *start.shape[2:])
    mask[:, :, 0] = torch.from_numpy(samples.i2v[rows]).float()[:, None, None, None]
    text = torch.from_numpy(samples.text[rows]).float()
    text[torch.from_numpy(rng.random(batch) < PROMPT_DROPOUT)] = 0.0
    # Stratified over the batch: the same distribution with less variance.
    uniform = torch.from_numpy((rng.permutation(batch) + rng.random(batch)) / batch).float()
    return latents, torch.cat([mask, start], 1), text, SHIFT * uniform / (1 + (SHIFT - 1) * uniform)


def flow_loss(model: Any, batch: tuple[torch.Tensor, ...], noise: torch.Tensor) -> torch.Tensor:
    """Mean squared error of the predicted velocity."""
    latents, extra, text, sigma = batch
    level = sigma[:, None, None, None, None]
    noisy = (1 - level) * latents + level * noise
    velocity = model._forward(torch.cat([noisy, extra], 1), sigma * 1000.0, text)
    return (velocity - (noise - latents)).square().mean()


def learning_rate(step: int, total: int) -> float:
    """Warm up, stay, and fall to zero over the last 30 %: until the fall a run can still be made longer or shorter."""
    return PEAK_RATE * min(1.0, (step + 1) / 200, (total - step) / (0.3 * total))


def checkpoint_path() -> Path:
    """Where the resumable training state lives."""
    from ..runtime import work_dir

    return work_dir() / "generator.pt"


def export(average: dict[str, torch.Tensor], step: int, seed: int) -> None:
    """Write the averaged weights as the file stock `UNETLoader` reads; its metadata tells the sizes it cannot infer."""
    metadata = {
        "config": json.dumps({"transformer": CONFIG}),
        "made_by": "demo/small_world/models/train_generator.py",
        "steps": str(step),
        "seed": str(seed),
        "shift": str(SHIFT),
    }
    save_weights(GENERATOR_FILE, {name: value.half() for name, value in average.items()}, metadata)


def train(rank: int, world: int, arguments: argparse.Namespace) -> None:
    """One of `world` training processes. The schedule follows steps, so a resumed run is the run."""
    from tqdm import tqdm

    samples = load_samples(arguments.parts)
    torch.manual_seed(arguments.seed)
    model = build()
    parameters = list(model.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=PEAK_RATE, betas=(0.9, 0.99), weight_decay=0.01)
    average = {name: value.clone() for name, value in model.state_dict().items()}
    first = 0
    if (state := load_checkpoint(checkpoint_path())) is not None:
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        average, first = state["average"], state["step"]

    saved, losses = time.monotonic(), []
    bar = tqdm(range(first, arguments.steps), initial=first, total=arguments.steps, disable=rank > 0, mininterval=5)
    for step in bar:
        # Seeded by (seed, step, rank): nothing but the weights needs to be saved to resume exactly.
        rng = np.random.default_rng([arguments.seed, step, rank])
        batch = draw_batch(samples, rng, arguments.batch)
        noise = torch.from_numpy(rng.standard_normal(batch[0].shape, dtype=np.float32))
        rate = learning_rate(step, arguments.steps)
        for group in optimiser.param_groups:
            group["lr"] = rate
        loss = flow_loss(model, batch, noise)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(parameters)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        keep = min(AVERAGING, (step + 1) / (step + 10))
        with torch.no_grad():
            for name, value in model.state_dict().items():
                average[name].lerp_(value, 1.0 - keep)
        losses.append(loss.item())
        if rank == 0 and (step + 1) % 100 == 0:
            bar.write(f"step {step + 1} loss {np.mean(losses[-100:]):.4f} rate {rate:.2e}")
        if rank == 0 and (time.monotonic() - saved > 180 or step + 1 == arguments.steps):
            model_state, optimiser_state = model.state_dict(), optimiser.state_dict()
            save_checkpoint(
                checkpoint_path(),
                {"model": model_state, "optimiser": optimiser_state, "average": average, "step": step + 1},
            )
            export(average, step + 1, arguments.seed)
            saved = time.monotonic()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=BATCH, help="per core")
    parser.add_argument("--parts", type=int, default=40, help="parts of prepare_data to train on")
    parser.add_argument("--seed", type=int, default=7)
    run_on_all_cores(train, parser.parse_args())


if __name__ == "__main__":
    main()
