"""Measure the small VAE through the stock path on unseen scenes.

    python tools/start.py small_world.measuring.evaluate_vae

Writes `results/vae.json`: reconstruction error, the latents' statistics after Wan's normalisation, and that the fast
paths used in training and sampling compute what stock `VAEEncode` and `VAEDecode` compute.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from ..files import save_result
from ..runtime import RESULTS, decode, load_vae
from ..scenes.dataset import random_scenes, render_many
from ..scenes.render import caption
from .pictures import contact_sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=120)
    parser.add_argument("--seed", type=int, default=61)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(arguments.threads)
    scenes = random_scenes(arguments.count, arguments.seed)
    videos = render_many(scenes, [i % 3 == 0 for i in range(len(scenes))])
    vae = load_vae()
    from comfy.latent_formats import Wan21

    from ..models.train_vae import encode

    with torch.inference_mode():
        latents = torch.cat([vae.encode(torch.from_numpy(video).float() / 255.0) for video in videos])
        few = slice(0, 8)
        slow = np.round(vae.decode(latents[few]).clamp(0, 1).numpy() * 255.0)
        again = decode(vae, latents)
        seen = Wan21().process_in(latents)
        quick = encode(vae.first_stage_model, videos[few])
    difference = (again.astype(np.float64) - videos) / 255.0
    per_channel = seen.std((0, 2, 3, 4))
    row = {
        "setting": "small VAE, stock loader",
        "n": len(videos),
        "mean_absolute_error": float(np.abs(difference).mean()),
        "psnr_db": float(-10 * np.log10((difference**2).mean())),
        "psnr_db_by_frame": [float(-10 * np.log10((difference[:, t] ** 2).mean())) for t in range(videos.shape[1])],
        "latent_mean": float(seen.mean()),
        "latent_std": float(seen.std()),
        "latent_std_by_channel": [round(float(s), 3) for s in per_channel],
        "largest_difference_fast_decode_levels": float(np.abs(slow - again[few]).max()),
        "largest_difference_fast_encode": float((quick - seen[few]).abs().max()),
    }
    print(row)
    pairs = np.stack([videos[:16], again[:16]], 1).reshape(-1, *videos.shape[1:])
    labels = [text for s in scenes[:16] for text in (caption(s), "reconstruction")]
    contact_sheet(pairs, labels, Path(__file__).parents[2] / "out" / "vae.png", frames=3)
    command = "python tools/start.py small_world.measuring.evaluate_vae " + " ".join(sys.argv[1:])
    save_result(RESULTS / "vae.json", command.strip(), [arguments.seed], [row])


if __name__ == "__main__":
    main()
