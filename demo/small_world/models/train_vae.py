"""Make the small VAE: ComfyUI's own Wan VAE class, encoder in closed form (`encoder.py`), decoder trained.

    python tools/start.py small_world.models.train_vae --encoder-only  fits and the encoder alone, for a generator
    python tools/start.py small_world.models.train_vae                  trains the decoder (resumes), saves the file

The latents' channel statistics are folded into the two 1x1x1 convolutions at the bottleneck, so that after Wan's fixed
latent normalisation (`comfy.latent_formats.Wan21`) they have mean 0 and mean variance 1. Decoder loss: L1 + L1 of
spatial differences, on latents with a little noise, as a generator's are never exact.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..files import load_checkpoint, save_checkpoint, save_weights, write_atomically
from ..runtime import VAE_FILE, use_comfyui, work_dir
from ..scenes.dataset import random_scenes, render_many
from .decoder import fast_path, prune
from .encoder import fit_encoder, linear_encoder, write_encoder

DIM = 16
CONFIG: dict[str, Any] = {
    "dim": DIM,
    "z_dim": 16,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_scales": [],
    "temperal_downsample": [False, True, True],
}
POOL = 2400
ENCODER_VIDEOS = 800
EDGE_WEIGHT = 0.5
LATENT_NOISE = 0.1
PEAK_RATE = 1.5e-3


def build() -> nn.Module:
    """An initialised `WanVAE`: residual branches start at zero and temporal resampling as repeat / average."""
    use_comfyui()
    from comfy.ldm.wan.vae import AttentionBlock, Resample, ResidualBlock, WanVAE

    vae = WanVAE(**CONFIG)
    for module in vae.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            nn.init.normal_(module.weight, std=1.0 / math.sqrt(module.weight[0].numel()))
            nn.init.zeros_(module.bias)
    for module in vae.modules():
        if isinstance(module, ResidualBlock):
            nn.init.normal_(module.residual[-1].weight, std=0.1 / math.sqrt(module.residual[-1].weight[0].numel()))
        elif isinstance(module, AttentionBlock):
            nn.init.zeros_(module.proj.weight)
        elif isinstance(module, Resample) and module.mode == "upsample3d":
            module.time_conv.weight.data.zero_()
            module.time_conv.weight.data[:, :, -1, 0, 0] = torch.eye(module.dim).repeat(2, 1)
    return vae


def speed_up_on_cpu(vae: nn.Module) -> nn.Module:
    """Channels-last weights: the same numbers about twice as fast."""
    for module in vae.modules():
        if isinstance(module, nn.Conv3d):
            module.weight.data = module.weight.data.to(memory_format=torch.channels_last_3d)
        elif isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.to(memory_format=torch.channels_last)
    return vae


def to_input(videos: np.ndarray) -> torch.Tensor:
    """uint8 (n, frames, height, width, 3) -> float (n, 3, frames, height, width) in [-1, 1], channels last."""
    video = torch.from_numpy(np.ascontiguousarray(videos)).permute(0, 4, 1, 2, 3).float() / 127.5 - 1.0
    return video.to(memory_format=torch.channels_last_3d)


@torch.no_grad()
def encode(vae: Any, videos: np.ndarray) -> torch.Tensor:
    """Latents as the generator sees them (after Wan's `process_in`): float (n, 16, 2, height / 8, width / 8)."""
    from comfy.latent_formats import Wan21

    with linear_encoder(vae):
        return Wan21().process_in(vae.encode(to_input(videos)))


@torch.no_grad()
def fold_normalisation(vae: Any, latents: torch.Tensor) -> None:
    """Rescale the bottleneck of `vae` in place; latents: (n, 16, t, h, w) encoded with it as it is.

    Channels keep half of their spread, on a log scale: full whitening would spend as much of the generator's effort on
    the faintest component as on the strongest. The mean variance is 1. The decoder undoes the change exactly.
    """
    from comfy.latent_formats import Wan21

    wan = Wan21()
    wan_mean, wan_std = wan.latents_mean.flatten(), wan.latents_std.flatten()
    mean, std = latents.mean((0, 2, 3, 4)), latents.std((0, 2, 3, 4))
    gain = wan_std * (std / std.mean()).sqrt() / std
    outward, inward = vae.conv1, vae.conv2
    outward.weight[:16] *= gain[:, None, None, None, None]
    outward.bias[:16] = gain * (outward.bias[:16] - mean) + wan_mean
    # The decoder starts from the normalised latents.
    inward.weight.zero_()
    inward.weight[:, :, 0, 0, 0] = torch.diag(1.0 / wan_std)
    inward.bias.copy_(-wan_mean / wan_std)


def training_videos(seed: int) -> np.ndarray:
    """The decoder's training videos uint8 (POOL, 5, 64, 64, 3), rendered once; a third of them as I2V videos."""
    path = work_dir() / "vae_videos.npy"
    if not path.exists():
        videos = render_many(random_scenes(POOL, seed), [i % 3 == 0 for i in range(POOL)])

        def write(temporary: Path) -> None:
            with open(temporary, "wb") as file:
                np.save(file, videos)

        write_atomically(path, write)
    return np.load(path, mmap_mode="r")


def vae_with_encoder(seed: int) -> Any:
    """The VAE with its final encoder and an untrained decoder, fitted once and kept in the work folder."""
    path = work_dir() / "vae_encoder.pt"
    torch.manual_seed(seed)
    vae = build()
    if (state := load_checkpoint(path)) is not None:
        vae.load_state_dict(state)
    else:
        videos = training_videos(seed)[:ENCODER_VIDEOS]
        write_encoder(vae, fit_encoder(videos))
        with torch.no_grad(), linear_encoder(vae):
            latents = torch.cat([vae.encode(to_input(videos[i : i + 50])) for i in range(0, len(videos), 50)])
        fold_normalisation(vae, latents)
        save_checkpoint(path, vae.state_dict())
    return speed_up_on_cpu(vae)


def decoder_loss(vae: Any, latents: torch.Tensor, video: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(training loss, mean absolute error on the 0-1 scale); latents as the generator sees them."""
    from comfy.latent_formats import Wan21

    output = vae.decode(Wan21().process_out(latents)).float()
    error = F.l1_loss(output, video)
    edges = sum(F.l1_loss(output.diff(dim=d), video.diff(dim=d)) for d in (3, 4))
    return error + EDGE_WEIGHT * edges, error.detach() / 2


def train_decoder(arguments: argparse.Namespace) -> None:
    """Train the decoder on 32 x 32 crops, later on whole videos; the file is written at every checkpoint."""
    import comfy.ldm.wan.vae
    from tqdm import tqdm

    # The same norm: torch's vector norm over the channel axis is several times slower on a CPU.
    comfy.ldm.wan.vae.RMS_norm.forward = lambda self, x: (
        x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-10) * self.gamma
    )
    checkpoint = work_dir() / "vae_decoder.pt"
    videos = training_videos(arguments.seed)
    vae = vae_with_encoder(arguments.seed)
    prune(vae)
    trained = [*vae.decoder.parameters(), *vae.conv2.parameters()]
    average = {name: value.clone() for name, value in vae.state_dict().items()}
    optimiser = torch.optim.Adam(trained, lr=PEAK_RATE, betas=(0.9, 0.98))
    first = 0
    if (state := load_checkpoint(checkpoint)) is not None:
        vae.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        average, first = state["average"], state["step"]

    saved, errors = time.monotonic(), []
    bar = tqdm(range(first, arguments.steps), initial=first, total=arguments.steps, mininterval=5)
    for step in bar:
        rng = np.random.default_rng([arguments.seed, step])
        side, batch = (64, 2) if step > 0.8 * arguments.steps else (32, 8)
        x, y = rng.integers(0, 64 - side + 1, 2)
        crop = np.stack([videos[i, :, y : y + side, x : x + side] for i in rng.integers(len(videos), size=batch)])
        latents = encode(vae, crop)
        latents += LATENT_NOISE * torch.from_numpy(rng.standard_normal(latents.shape, dtype=np.float32))
        rate = PEAK_RATE * min(1.0, (step + 1) / 100, (arguments.steps - step) / (0.4 * arguments.steps))
        for group in optimiser.param_groups:
            group["lr"] = rate
        with fast_path(vae), torch.autocast("cpu", torch.bfloat16):
            loss, error = decoder_loss(vae, latents, to_input(crop))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        keep = min(0.995, (step + 1) / (step + 10))
        with torch.no_grad():
            for name, value in vae.state_dict().items():
                average[name].lerp_(value, 1.0 - keep)
        errors.append(error.item())
        if (step + 1) % 100 == 0:
            bar.write(f"step {step + 1} mean absolute error {np.mean(errors[-100:]):.4f} rate {rate:.2e}")
        if time.monotonic() - saved > 180 or step + 1 == arguments.steps:
            model_state, optimiser_state = vae.state_dict(), optimiser.state_dict()
            save_checkpoint(
                checkpoint,
                {"model": model_state, "optimiser": optimiser_state, "average": average, "step": step + 1},
            )
            metadata = {
                "made_by": "demo/small_world/models/train_vae.py",
                "seed": str(arguments.seed),
                "steps": str(step + 1),
            }
            save_weights(VAE_FILE, {name: value.half() for name, value in average.items()}, metadata)
            saved = time.monotonic()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder-only", action="store_true")
    parser.add_argument("--steps", type=int, default=3300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)
    vae_with_encoder(arguments.seed)
    if not arguments.encoder_only:
        train_decoder(arguments)


if __name__ == "__main__":
    main()
