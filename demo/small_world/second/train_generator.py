"""Train the second generator: ComfyUI's own HunyuanVideo class, small, one model for T2V and I2V.

    python tools/start.py small_world.second.train_generator       (resumes after a kill)

Rectified flow as in the first world (`models/train_generator.py`): x_s = (1 - s) x + s noise, target noise - x, s drawn
uniformly and then shifted. In I2V samples latent frame 0 stays as it is and counts nothing in the loss.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from torch import nn

from ..files import load_checkpoint, save_checkpoint, save_weights
from .model import build, velocity
from .paths import generator_file, work_dir
from .prepare_data import Samples, load_samples

SHIFT = 3.0
PROMPT_DROPOUT = 0.1
PEAK_RATE = 8e-4
AVERAGING = 0.998
BATCH = 32
SAVE_SECONDS = 300


def draw_batch(samples: Samples, rng: np.random.Generator, batch: int) -> tuple[torch.Tensor, ...]:
    """A random batch: latents (b, 128, 2, 6, 6), text (b, 20, 640), i2v float (b,), sigma (b,)."""
    rows = np.sort(rng.integers(len(samples), size=batch))
    latents = torch.from_numpy(samples.latents[rows]).float()
    text = torch.from_numpy(samples.text[samples.caption[rows]]).float()
    text[torch.from_numpy(rng.random(batch) < PROMPT_DROPOUT)] = 0.0
    # Stratified over the batch: the same distribution with less variance.
    uniform = torch.from_numpy((rng.permutation(batch) + rng.random(batch)) / batch).float()
    return latents, text, torch.from_numpy(samples.i2v[rows]).float(), SHIFT * uniform / (1 + (SHIFT - 1) * uniform)


def flow_loss(model: Any, batch: tuple[torch.Tensor, ...], noise: torch.Tensor) -> torch.Tensor:
    """Mean squared error of the predicted velocity; start frames, which are given, are left out."""
    latents, text, i2v, sigma = batch
    made = torch.ones_like(latents[:, :1])
    made[:, :, 0] -= i2v[:, None, None, None]
    level = sigma[:, None, None, None, None] * made
    noisy = (1 - level) * latents + level * noise
    error = velocity(model, noisy, sigma, text, i2v).float() - (noise - latents)
    return (error.square() * made).mean() / made.mean()


def learning_rate(step: int, total: int) -> float:
    """Warm up, stay, and fall to zero over the last 30 %: until the fall a run can still be made longer or shorter."""
    return PEAK_RATE * min(1.0, (step + 1) / 300, (total - step) / (0.3 * total))


def export(average: dict[str, torch.Tensor], step: int, seed: int) -> None:
    """Write the averaged weights as the file stock `UNETLoader` reads; it finds all sizes in the weights."""
    metadata = {
        "made_by": "demo/small_world/second/train_generator.py",
        "text_encoder": "Gemma 3 270M, layer 12",
        "notice": "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms",
        "steps": str(step),
        "seed": str(seed),
        "shift": str(SHIFT),
    }
    save_weights(generator_file(), {name: value.half() for name, value in average.items()}, metadata)


def train(arguments: argparse.Namespace) -> None:
    """The schedule follows steps, so a resumed run is the run."""
    from tqdm import tqdm

    samples, checkpoint = load_samples(arguments.parts), work_dir() / "generator.pt"
    torch.manual_seed(arguments.seed)
    model = build()
    parameters = list(model.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=PEAK_RATE, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    average = {name: value.clone() for name, value in model.state_dict().items()}
    first = 0
    if (state := load_checkpoint(checkpoint)) is not None:
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        average, first = state["average"], state["step"]
    saved, losses = time.monotonic(), []
    bar = tqdm(range(first, arguments.steps), initial=first, total=arguments.steps, mininterval=60)
    for step in bar:
        # Seeded by (seed, step): nothing but the weights needs to be saved to resume exactly.
        rng = np.random.default_rng([arguments.seed, step])
        batch = draw_batch(samples, rng, arguments.batch)
        noise = torch.from_numpy(rng.standard_normal(batch[0].shape, dtype=np.float32))
        rate = learning_rate(step, arguments.steps)
        for group in optimiser.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16):
            loss = flow_loss(model, batch, noise)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        keep = min(AVERAGING, (step + 1) / (step + 10))
        with torch.no_grad():
            for name, value in model.state_dict().items():
                average[name].lerp_(value, 1.0 - keep)
        losses.append(loss.item())
        if (step + 1) % 100 == 0:
            bar.write(f"step {step + 1} loss {np.mean(losses[-100:]):.4f} rate {rate:.2e}")
        if time.monotonic() - saved > SAVE_SECONDS or step + 1 == arguments.steps:
            state = {"model": model.state_dict(), "optimiser": optimiser.state_dict()}
            save_checkpoint(checkpoint, state | {"average": average, "step": step + 1})
            export(average, step + 1, arguments.seed)
            saved = time.monotonic()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10000)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--parts", type=int, default=24, help="parts of prepare_data to train on")
    parser.add_argument("--seed", type=int, default=13)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
