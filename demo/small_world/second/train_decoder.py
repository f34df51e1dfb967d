"""Train the decoder of the second world's VAE on the codec's latents.

    python tools/start.py small_world.second.train_decoder       (resumes after a kill)

Loss: mean squared error at first (L1 alone stays for long at the mean picture), later L1 + L1 of spatial differences,
which is sharper; on latents with a little noise, as a generator's are never exact.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..files import load_checkpoint, save_checkpoint, save_weights
from ..scenes.dataset import random_scenes
from ..scenes.render import ENTERING, PRESENT, render
from .codec import SIDE, load_codec, to_frames
from .paths import vae_file, work_dir
from .vae import CONFIG, build

EDGE_WEIGHT = 0.5
LATENT_NOISE = 0.15
SQUARED_UNTIL, SHARP_FROM = 0.3, 0.5
PEAK_RATE = 5e-4
BATCH = 16
AVERAGING = 0.998
SAVE_SECONDS = 180


def draw_videos(batch: int, seed: int, step: int) -> np.ndarray:
    """Fresh training videos uint8 (batch, 5, SIDE, SIDE, 3) of a step; a third of them as I2V videos."""
    scenes = random_scenes(batch, seed * 1_000_000 + step)
    return np.stack([render(s, ENTERING if i % 3 == 0 else PRESENT, side=SIDE) for i, s in enumerate(scenes)])


def decoder_loss(output: torch.Tensor, video: torch.Tensor, sharp: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(training loss, mean squared error on the 0-1 scale) of videos (n, 3, t, h, w) in [-1, 1].

    sharp: the share of the loss that is not squared error, 0 to 1.
    """
    squared = (output - video).square().mean()
    edges = sum(F.l1_loss(output.diff(dim=d), video.diff(dim=d)) for d in (3, 4))
    absolute = F.l1_loss(output, video) + EDGE_WEIGHT * edges
    return (1 - sharp) * 4 * squared + sharp * absolute, squared.detach() / 4


def sharpness(step: int, total: int) -> float:
    """The share of the loss that is not squared error: 0, then rising, then 1."""
    return float(np.clip((step / total - SQUARED_UNTIL) / (SHARP_FROM - SQUARED_UNTIL), 0.0, 1.0))


def learning_rate(step: int, total: int) -> float:
    """Warm up, stay, and fall to zero over the last 40 %."""
    return PEAK_RATE * min(1.0, (step + 1) / 100, (total - step) / (0.4 * total))


def export(vae: Any, average: dict[str, torch.Tensor], step: int, seed: int) -> None:
    """Write the file stock `VAELoader` reads: the encoder as it is and the averaged decoder."""
    weights = {name: value.half() for name, value in (vae.state_dict() | average).items()}
    metadata = {
        "config": json.dumps({"vae": CONFIG}),
        "made_by": "demo/small_world/second/train_decoder.py",
        "seed": str(seed),
        "steps": str(step),
    }
    save_weights(vae_file(), weights, metadata)


def train(arguments: argparse.Namespace) -> None:
    """The schedule follows steps, so a resumed run is the run."""
    from tqdm import tqdm

    codec, checkpoint = load_codec(), work_dir() / "decoder.pt"
    torch.manual_seed(arguments.seed)
    vae = build(codec)
    decoder = vae.decoder
    optimiser = torch.optim.Adam(decoder.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98))
    average = {f"decoder.{name}": value.clone() for name, value in decoder.state_dict().items()}
    first = 0
    if (state := load_checkpoint(checkpoint)) is not None:
        decoder.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        average, first = state["average"], state["step"]
    saved, errors = time.monotonic(), []
    bar = tqdm(range(first, arguments.steps), initial=first, total=arguments.steps, mininterval=30)
    for step in bar:
        rng = np.random.default_rng([arguments.seed, step])
        videos = draw_videos(arguments.batch, arguments.seed, step)
        latents = codec.encode(videos)
        latents += LATENT_NOISE * torch.from_numpy(rng.standard_normal(latents.shape, dtype=np.float32))
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, arguments.steps)
        with torch.autocast("cpu", torch.bfloat16):
            output = decoder(latents).float()
        video = to_frames(videos).transpose(1, 2)
        loss, error = decoder_loss(output, video, sharpness(step, arguments.steps))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimiser.step()
        keep = min(AVERAGING, (step + 1) / (step + 10))
        with torch.no_grad():
            for name, value in decoder.state_dict().items():
                average[f"decoder.{name}"].lerp_(value, 1.0 - keep)
        errors.append(error.item())
        if (step + 1) % 50 == 0:
            psnr = -10 * np.log10(np.mean(errors[-50:]))
            bar.write(f"step {step + 1} PSNR {psnr:.2f} dB with noisy latents, loss {loss.item():.4f}")
        if time.monotonic() - saved > SAVE_SECONDS or step + 1 == arguments.steps:
            state = {"model": decoder.state_dict(), "optimiser": optimiser.state_dict()}
            save_checkpoint(checkpoint, state | {"average": average, "step": step + 1})
            export(vae, average, step + 1, arguments.seed)
            saved = time.monotonic()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--seed", type=int, default=11)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
