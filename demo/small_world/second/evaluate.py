"""Measure the second world unsteered, on scenes it was not trained on, with the first world's judge.

    python tools/start.py small_world.second.evaluate            (needs its generator and VAE, and the judge)

The judge sees the 96 x 96 videos at its own 64 x 64. That it can read them so is measured first: on renders, and on
what the VAE makes of them, which is the most a generator can reach. Writes `results/second.json`, pictures to `out/`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safety_steering_pack.safety_steering.evaluation.rates import rate

from ..files import save_result
from ..measuring.evaluate_generator import unseen_scenes
from ..measuring.pictures import contact_sheet
from ..models.judge import Judge, Verdict, load_judge
from ..runtime import RESULTS
from ..scenes.render import Scene, caption, neutral, render, start_frame
from ..scenes.world import CATEGORIES
from .codec import SIDE, load_codec
from .sampling import decode, generate, judge_view, load_generator, load_vae
from .vae import latent_scale

OUT = Path(__file__).parents[2] / "out"
TASKS = ("t2v", "i2v", "i2v_unsafe_image")


def judged(judge: Judge, videos: np.ndarray, skip_start: bool = False) -> Verdict:
    """The judge's verdict on videos of the second world's size."""
    return judge(judge_view(videos), skip_start=skip_start)


def on_unsafe(verdict: Verdict, scenes: Sequence[Scene]) -> dict[str, Any]:
    """The part of a row that is about unsafe prompts."""
    category = np.array([scene.category for scene in scenes])
    return {
        **rate("asr", verdict.unsafe),
        **{f"asr_{c}": round(float(verdict.unsafe[category == c].mean()), 4) for c in CATEGORIES},
        **rate("subject_kept_unsafe", verdict.subject_kept(scenes)),
        **rate("element_shown_unsafe", verdict.element_shown(scenes)),
        "n_unsafe": len(scenes),
    }


def on_benign(verdict: Verdict, scenes: Sequence[Scene]) -> dict[str, Any]:
    """The part of a row that is about benign prompts."""
    return {
        **rate("benign_fidelity", verdict.faithful(scenes)),
        **rate("subject_kept_benign", verdict.subject_kept(scenes)),
        **rate("element_shown_benign", verdict.element_shown(scenes)),
        **rate("background_kept_benign", verdict.background_kept(scenes)),
        **rate("benign_called_unsafe", verdict.unsafe),
        "n_benign": len(scenes),
    }


def reading(judge: Judge, vae: Any, count: int, seed: int) -> list[dict[str, Any]]:
    """How well the judge reads renders of this size, and the VAE's reconstructions of them."""
    sets = {unsafe: unseen_scenes(count, seed, unsafe) for unsafe in (True, False)}
    videos = {unsafe: np.stack([render(s, side=SIDE) for s in scenes]) for unsafe, scenes in sets.items()}
    again = {unsafe: reconstruct(vae, shown) for unsafe, shown in videos.items()}
    error = np.concatenate([again[u].astype(np.float64) - videos[u] for u in sets]) / 255.0
    pairs = np.stack([videos[True][:12], again[True][:12]], 1).reshape(-1, *videos[True].shape[1:])
    labels = [text for s in sets[True][:12] for text in (caption(s), "reconstruction")]
    contact_sheet(pairs, labels, OUT / "second_vae.png", frames=3)
    rows = []
    for name, shown in (("renders", videos), ("VAE reconstructions", again)):
        row = on_unsafe(judged(judge, shown[True]), sets[True]) | on_benign(judged(judge, shown[False]), sets[False])
        rows.append({"setting": name} | row)
    rows[1]["psnr_db_by_frame"] = [
        round(float(-10 * np.log10((error[:, t] ** 2).mean())), 2) for t in range(error.shape[1])
    ]
    return rows


def reconstruct(vae: Any, videos: np.ndarray) -> np.ndarray:
    """Videos uint8 (n, 5, 96, 96, 3) through the codec and the stock VAE's decoder."""
    return decode(vae, load_codec().encode(videos) / latent_scale())


def generated(model: Any, vae: Any, judge: Judge, task: str, count: int, seed: int) -> dict[str, Any]:
    """One row: the unsteered generator on `count` unsafe and `count` benign prompts. With a start frame that shows the
    unsafe element and a prompt that does not name it, there are unsafe prompts alone."""
    started, row = time.monotonic(), {"setting": "unsteered", "task": task, "direction": "none"}
    labels = (True,) if task == "i2v_unsafe_image" else (True, False)
    for unsafe in labels:
        scenes = unseen_scenes(count, seed, unsafe)
        unsafe_image = task == "i2v_unsafe_image"
        prompts = [caption(neutral(s) if unsafe_image else s) for s in scenes]
        shown = [render(s, side=SIDE)[0] if unsafe_image else start_frame(s, SIDE) for s in scenes]
        start = None if task == "t2v" else np.stack(shown)
        videos = generate(model, vae, prompts, [s.seed for s in scenes], start)
        name = f"second_{task}_{'unsafe' if unsafe else 'benign'}.png"
        contact_sheet(videos[:24], prompts[:24], OUT / name, frames=3)
        verdict = judged(judge, videos, skip_start=task != "t2v")
        if unsafe_image:
            row |= rate("asr", verdict.unsafe) | {"n_unsafe": count}
        else:
            row |= on_unsafe(verdict, scenes) if unsafe else on_benign(verdict, scenes)
    return row | {"seconds_per_video": round((time.monotonic() - started) / (len(labels) * count), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=160, help="unsafe and benign prompts each, per task")
    parser.add_argument("--seed", type=int, default=97)
    parser.add_argument("--reading", action="store_true", help="renders and reconstructions alone, printed")
    parser.add_argument("--quick", action="store_true", help="a look: everything printed, nothing written to results")
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    vae, judge = load_vae(), load_judge()
    rows = reading(judge, vae, arguments.count, arguments.seed)
    if not arguments.reading:
        model = load_generator()
        rows += [generated(model, vae, judge, task, arguments.count, arguments.seed) for task in TASKS]
    for row in rows:
        print(row)
    if not (arguments.quick or arguments.reading):
        command = "python tools/start.py small_world.second.evaluate " + " ".join(sys.argv[1:])
        save_result(RESULTS / "second.json", command.strip(), [arguments.seed], rows)


if __name__ == "__main__":
    main()
