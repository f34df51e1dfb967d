"""Measure the unsteered generator through ComfyUI's real sampling path, T2V and I2V, on scenes it was not trained on.

    python tools/start.py small_world.measuring.evaluate_generator    (needs generator, VAE and judge)

Writes `results/generator.json` and a labelled contact sheet of the first videos to `out/`.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safety_steering_pack.safety_steering.evaluation.rates import rate

from ..files import save_result
from ..models.judge import Judge, load_judge
from ..runtime import GENERATOR_FILE, RESULTS, load_generator, load_vae
from ..scenes.dataset import random_scenes
from ..scenes.render import Scene, caption, neutral, render, start_frame
from .pictures import contact_sheet
from .sampling import Sampling, generate


def unseen_scenes(count: int, seed: int, unsafe: bool) -> list[Scene]:
    """`count` scenes over the whole world, all unsafe or all benign with an element."""
    pool = random_scenes(count * 4, seed, alone_share=0.0)
    return [s for s in pool if s.unsafe == unsafe][:count]


def measure(model: Any, vae: Any, judge: Judge, task: str, count: int, seed: int, how: Sampling) -> dict[str, Any]:
    """One row of results: the unsteered model on `count` unsafe and `count` benign prompts."""
    started = time.monotonic()
    i2v = task == "i2v"
    sets = {}
    for unsafe in (True, False):
        scenes = unseen_scenes(count, seed, unsafe)
        start = np.stack([start_frame(s) for s in scenes]) if i2v else None
        videos = generate(model, vae, [caption(s) for s in scenes], [s.seed for s in scenes], start, how)
        sets[unsafe] = (scenes, videos, judge(videos, skip_start=i2v))
        labels = [caption(s) for s in scenes[:24]]
        name = f"generator_{task}_{'unsafe' if unsafe else 'benign'}.png"
        contact_sheet(videos[:24], labels, Path(__file__).parents[2] / "out" / name, frames=3)
    (unsafe_scenes, _, on_unsafe), (benign_scenes, _, on_benign) = sets[True], sets[False]
    per_category = {
        f"asr_{c}": round(float(on_unsafe.unsafe[[s.category == c for s in unsafe_scenes]].mean()), 4)
        for c in ("gore", "violence", "drugs")
    }
    return {
        "setting": "unsteered",
        "task": task,
        "direction": "none",
        **rate("asr", on_unsafe.unsafe),
        **per_category,
        **rate("benign_fidelity", on_benign.faithful(benign_scenes)),
        **rate("subject_kept_unsafe", on_unsafe.subject_kept(unsafe_scenes)),
        **rate("subject_kept_benign", on_benign.subject_kept(benign_scenes)),
        **rate("element_shown_unsafe", on_unsafe.element_shown(unsafe_scenes)),
        **rate("element_shown_benign", on_benign.element_shown(benign_scenes)),
        **rate("background_kept_benign", on_benign.background_kept(benign_scenes)),
        **rate("benign_called_unsafe", on_benign.unsafe),
        "n_unsafe": len(unsafe_scenes),
        "n_benign": len(benign_scenes),
        "seconds_per_video": round((time.monotonic() - started) / (2 * count), 3),
    }


def measure_unsafe_image(model: Any, vae: Any, judge: Judge, count: int, seed: int, how: Sampling) -> dict[str, Any]:
    """I2V from a start frame that already shows an unsafe element, with a neutral prompt (reported, no bar)."""
    scenes = unseen_scenes(count, seed, unsafe=True)
    start = np.stack([render(s)[0] for s in scenes])
    prompts = [caption(neutral(s)) for s in scenes]
    verdict = judge(generate(model, vae, prompts, [s.seed for s in scenes], start, how), skip_start=True)
    return {
        "setting": "unsteered",
        "task": "i2v_unsafe_image",
        "direction": "none",
        **rate("asr", verdict.unsafe),
        "n_unsafe": count,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=320, help="unsafe and benign prompts each, per task")
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--cfg", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=97)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--generator", type=Path, default=GENERATOR_FILE)
    parser.add_argument("--quick", action="store_true", help="T2V only, results printed and not written")
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(arguments.threads)
    how = replace(Sampling(), steps=arguments.steps, cfg=arguments.cfg)
    model, vae, judge = load_generator(arguments.generator), load_vae(), load_judge()
    tasks = ["t2v"] if arguments.quick else ["t2v", "i2v"]
    rows = [measure(model, vae, judge, task, arguments.count, arguments.seed, how) for task in tasks]
    if not arguments.quick:
        rows.append(measure_unsafe_image(model, vae, judge, arguments.count, arguments.seed, how))
    for row in rows:
        row.update(steps=how.steps, cfg=how.cfg)
        print(row)
    if not arguments.quick:
        command = "python tools/start.py small_world.measuring.evaluate_generator " + " ".join(sys.argv[1:])
        save_result(RESULTS / "generator.json", command.strip(), [arguments.seed], rows)


if __name__ == "__main__":
    main()
