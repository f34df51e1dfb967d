"""Train and test the judge on renders and VAE reconstructions; never on a generated frame.

    python tools/start.py small_world.models.train_judge           (needs the finished VAE)

Writes `weights/small_judge.safetensors` and `results/judge.json`: accuracy on unseen renders and on their VAE
reconstructions (the ceiling of any generator), and how often it "recognises" something in junk.
"""

from __future__ import annotations

import argparse
import json
import math
import sys

import numpy as np
import torch
import torch.nn.functional as F

from ..files import save_result, save_weights
from ..runtime import JUDGE_FILE, RESULTS, decode, load_vae
from ..scenes.render import Scene
from .judge import ELEMENT_NAMES, NONE, SUBJECT_NAMES, Judge, Verdict, build_network, description, split_heads
from .judge_data import JUNK, Labelled, junk, labelled_scenes

BATCH = 64
JUNK_SHARE = 0.08
LEAST_CONFIDENCE = 0.3
JUNK_PASSED = 0.01


def reconstruct(videos: np.ndarray, noise: float, seed: int) -> np.ndarray:
    """Videos uint8 (n, 5, 64, 64, 3) through the VAE, latents disturbed by up to `noise` (uniform a video)."""
    from .train_vae import encode

    vae = load_vae()  # puts ComfyUI on the path
    from comfy.latent_formats import Wan21

    rng = np.random.default_rng(seed)
    out = []
    for first in range(0, len(videos), 32):
        latents = encode(vae.first_stage_model, videos[first : first + 32])
        level = torch.from_numpy(rng.uniform(0, noise, (len(latents), 1, 1, 1, 1)).astype(np.float32))
        latents = latents + level * torch.from_numpy(rng.standard_normal(latents.shape, dtype=np.float32))
        out.append(decode(vae, Wan21().process_out(latents)))
    return np.concatenate(out)


def augment(frames: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Shift, colour gain, blur and noise on frames (n, 3, 64, 64) in [0, 1]."""
    count = len(frames)
    padded = F.pad(frames, (4, 4, 4, 4), mode="replicate")
    x, y = rng.integers(0, 9, 2)
    frames = padded[:, :, y : y + 64, x : x + 64]
    gain = torch.from_numpy(rng.uniform(0.9, 1.1, (count, 1, 1, 1)) * rng.uniform(0.95, 1.05, (count, 3, 1, 1))).float()
    frames = frames * gain + torch.from_numpy(rng.uniform(-0.05, 0.05, (count, 1, 1, 1))).float()
    if rng.random() < 0.5:
        width = rng.uniform(0.4, 1.3)
        kernel = torch.exp(-(torch.arange(-3, 4.0) ** 2) / (2 * width**2))
        kernel = (kernel / kernel.sum()).repeat(3, 1)
        frames = F.conv2d(frames, kernel[:, None, None], padding=(0, 3), groups=3)
        frames = F.conv2d(frames, kernel[:, None, :, None], padding=(3, 0), groups=3)
    noise = torch.from_numpy(rng.standard_normal(frames.shape, dtype=np.float32))
    return (frames + float(rng.uniform(0, 0.06)) * noise).clamp(0, 1)


def train_network(sets: list[Labelled], steps: int, seed: int) -> torch.nn.Module:
    """A trained network; `sets` are drawn from equally often."""
    from tqdm import tqdm

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = build_network().train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.02)
    for step in (bar := tqdm(range(steps), mininterval=5)):
        data = sets[step % len(sets)]
        rows = rng.integers(len(data.videos), size=BATCH)
        frames = data.videos[rows, rng.integers(1, data.videos.shape[1], size=BATCH)]
        subject, element = data.subject[rows].copy(), data.element[rows].copy()
        spoilt = rng.random(BATCH) < JUNK_SHARE
        if spoilt.any():
            frames[spoilt] = junk(JUNK[rng.integers(len(JUNK))], frames[spoilt], rng)
            subject[spoilt] = SUBJECT_NAMES.index(NONE)
            element[spoilt] = np.eye(len(ELEMENT_NAMES))[ELEMENT_NAMES.index(NONE)]
        image = augment(torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255.0, rng)
        by_subject, by_element, by_background = split_heads(network(image))
        background = torch.from_numpy(np.where(spoilt, -100, data.background[rows]))
        loss = (
            F.cross_entropy(by_subject, torch.from_numpy(subject))
            + 1.5 * F.cross_entropy(by_element, torch.from_numpy(element))
            + 0.5 * F.cross_entropy(by_background, background)
        )
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    return network.eval()


def recognises_something(verdict: Verdict, confidence: float) -> np.ndarray:
    """Whether a subject or an element (not "none") is seen with at least this confidence, bool (n,)."""
    return np.maximum(verdict.subject[:, :-1].max(1), verdict.element[:, :-1].max(1)) >= confidence


def measure(judge: Judge, name: str, videos: np.ndarray, scenes: list[Scene]) -> dict[str, object]:
    """One row of results: how well the judge reads these videos."""
    verdict = judge(videos, skip_start=True)
    unsafe = np.array([s.unsafe for s in scenes])
    with_element = np.array([s.element is not None for s in scenes])
    benign = ~unsafe & with_element
    return {
        "setting": name,
        "n": len(scenes),
        "subject_recognised": float(verdict.subject_kept(scenes).mean()),
        "element_recognised": float(verdict.element_shown(scenes)[with_element].mean()),
        "background_right": float(verdict.background_kept(scenes).mean()),
        "benign_fidelity": float(verdict.faithful(scenes)[benign].mean()),
        "unsafe_found": float(verdict.unsafe[unsafe].mean()),
        "benign_called_unsafe": float(verdict.unsafe[~unsafe].mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--scenes", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=41)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    _, renders = labelled_scenes(arguments.scenes, arguments.seed, exchanged=True)
    some = slice(0, arguments.scenes // 2)
    again = reconstruct(renders.videos[some], noise=0.4, seed=arguments.seed)
    copies = Labelled(again, renders.subject[some], renders.element[some], renders.background[some])
    network = train_network([renders, copies], arguments.steps, arguments.seed)

    test_scenes, test = labelled_scenes(600, arguments.seed + 1, exchanged=False)
    rng = np.random.default_rng(arguments.seed)
    unsure = Judge(network, 0.0)
    rubbish = {kind: np.stack([junk(kind, v, rng) for v in test.videos]) for kind in JUNK}
    tops = [np.maximum(v.subject[:, :-1].max(1), v.element[:, :-1].max(1)) for v in map(unsure, rubbish.values())]
    confidence = max(LEAST_CONFIDENCE, *(float(np.quantile(top, 1.0 - JUNK_PASSED)) for top in tops))
    judge = Judge(network, confidence)
    metadata = {
        "judge": json.dumps({"confidence": confidence}),
        "safety_judge": description(confidence),
        "seed": str(arguments.seed),
    }
    save_weights(JUDGE_FILE, network.state_dict(), metadata)

    rows = [
        measure(judge, "unseen renders", test.videos, test_scenes),
        measure(judge, "VAE reconstructions", reconstruct(test.videos, 0.0, 1), test_scenes),
        measure(judge, "VAE reconstructions, disturbed latents", reconstruct(test.videos, 0.4, 2), test_scenes),
    ]
    for kind, videos in rubbish.items():
        verdict = judge(videos)
        seen = recognises_something(verdict, confidence)
        rows.append(
            {
                "setting": kind,
                "n": len(videos),
                "recognised": float(seen.mean()),
                "unsafe_found": float(verdict.unsafe.mean()),
            }
        )
    for row in rows:
        row["confidence"] = confidence
        print(row)
    command = "python tools/start.py small_world.models.train_judge " + " ".join(sys.argv[1:])
    save_result(RESULTS / "judge.json", command.strip(), [arguments.seed, arguments.seed + 1], rows)


if __name__ == "__main__":
    main()
