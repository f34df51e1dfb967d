"""The cost of a capture: captured over plain generation of the same prompts, and memory after 50 and 500 prompts.

    .venv/bin/python tools/start.py capture            # about 8 minutes; writes bench/results/capture.json
    .venv/bin/python tools/start.py capture --quick    # few pairs, few prompts; writes nothing

Time: a Wan model of the real 1.3B width with few blocks; every block, four sigma bins and the text states are captured.
A pair is one prompt, encoded and sampled, against `capture_prompts` on that prompt into a folder of its own: hooks,
pooling, and a manifest and a shard for every single prompt, where a real capture writes one for sixteen. Pairs are
interleaved as in overhead.py. Memory: one process of its own captures 50 prompts, then goes on to 500 in the same
folder; what is resident is read after each. Ends with exit code 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import start
import torch
from overhead import ratio_of
from safety_steering_pack.safety_steering.evaluation.rates import bootstrap
from wan import SHAPE, TEXT_TOKENS, build

RESULTS = Path(__file__).parent / "results" / "capture.json"
SEED = 0
LAYERS = 6
LATENT = (16, 3, 16, 16)
STEPS, CFG, BINS = 4, 5.0, 4
PAIRS, WARM_UP, TIME_BAR = 30, 2, 1.03
PROMPTS, MEMORY_BAR = (50, 500), 1.02
# small, since the growth of memory does not depend on the size of a video
MEMORY_LATENT, MEMORY_TEXT = (16, 1, 8, 8), 8
THREADS = 2
KEYS = {"resident": "VmRSS", "peak": "VmHWM"}


class Clip:
    """Text states as Wan's encoder gives them, without the encoder."""

    def __init__(self, tokens: int = TEXT_TOKENS) -> None:
        self._tokens = tokens

    def tokenize(self, text: str) -> str:
        return text

    def encode_from_tokens_scheduled(self, text: str) -> list[list[Any]]:
        generator = torch.Generator().manual_seed(sum(map(ord, text)))
        states = torch.randn(1, self._tokens, SHAPE["text_dim"], generator=generator)
        states[:, self._tokens // 2 :] = 0
        return [[states, {}]]


def prompt_set(count: int, first: int = 0) -> Any:
    """Safe prompts, one a row."""
    from safety_steering_pack.safety_steering.prompts.prompt_set import PromptRow, PromptSet

    texts = [f"a fox in the forest, take {number}" for number in range(first, first + count)]
    return PromptSet(tuple(PromptRow(text, "benign", safe=text, split="train") for text in texts))


def sampling(latent: tuple[int, ...], steps: int, cfg: float) -> Any:
    from safety_steering_pack.bridge.sampling.sampling import Sampling

    return Sampling({"samples": torch.zeros(1, *latent)}, "", steps, cfg, "euler", "simple", SEED)


def paired_ratios(pairs: int) -> list[float]:
    """captured / plain seconds of `pairs` pairs, each on a prompt of its own."""
    from safety_steering_pack.bridge.capture.run import capture_prompts
    from safety_steering_pack.bridge.sampling.sampling import encode_prompt, list_prompts, noise_seed, sample_prompt

    patcher, clip, how = build(layers=LAYERS), Clip(), sampling(LATENT, STEPS, CFG)
    folders = itertools.count()

    def plain(prompts: Any) -> torch.Tensor:
        (prompt,) = list_prompts(prompts)
        negative = encode_prompt(clip, "", None)
        positive = encode_prompt(clip, prompt.text, None)
        return sample_prompt(patcher, positive, negative, how, noise_seed(SEED, prompt.row))

    with tempfile.TemporaryDirectory(prefix="safety-steering-capture-") as root, torch.inference_mode():

        def captured(prompts: Any) -> Any:
            return capture_prompts(patcher, clip, prompts, how, "all", BINS, Path(root) / str(next(folders)))

        ratios = []
        for pair in range(-WARM_UP, pairs):
            prompts = prompt_set(1, first=pair)
            order = pair % 2 == 1
            ratio = ratio_of(lambda p=prompts: plain(p), lambda p=prompts: captured(p), order)
            ratios += [ratio] if pair >= 0 else []
    return ratios


def resident_after(counts: tuple[int, ...]) -> dict[str, Any]:
    """Bytes resident after so many prompts of one capture, and the peak until then. In a process of its own."""
    from safety_steering_pack.bridge.capture.run import capture_prompts

    torch.set_num_threads(THREADS)
    patcher, clip, how = build(layers=LAYERS), Clip(MEMORY_TEXT), sampling(MEMORY_LATENT, 1, 1.0)
    found = {}
    with tempfile.TemporaryDirectory(prefix="safety-steering-capture-") as folder, torch.inference_mode():
        for count in counts:
            capture_prompts(patcher, clip, prompt_set(count), how, "all", 1, Path(folder) / "activations")
            status = Path("/proc/self/status").read_text().splitlines()
            lines = dict(line.split(":", 1) for line in status)
            found[str(count)] = {name: 1024 * int(lines[key].split()[0]) for name, key in KEYS.items()}
    return found


def memory(counts: tuple[int, ...]) -> dict[str, Any]:
    # glibc keeps some freed blocks; with this, resident memory is the memory in use
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**18)}
    command = start.command("capture", "--resident-after", *map(str, counts))
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    found = json.loads(output.splitlines()[-1])
    few, many = (found[str(count)] for count in counts)
    return {
        "setting": f"memory, {counts[0]} and {counts[1]} prompts",
        "prompts": list(counts),
        "resident_bytes": [few["resident"], many["resident"]],
        "peak_bytes": [few["peak"], many["peak"]],
        "ratio": round(many["resident"] / few["resident"], 4),
        "peak_ratio": round(many["peak"] / few["peak"], 4),
        "bar": MEMORY_BAR,
    }


def timing(pairs: int) -> dict[str, Any]:
    ratios = paired_ratios(pairs)
    return {
        "setting": f"time, all {LAYERS} blocks and the text states, {BINS} sigma bins",
        "ratio_median": round(median(ratios), 4),
        "ratio_ci": bootstrap(ratios, np.median),
        "pairs": len(ratios),
        "bar": TIME_BAR,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="4 pairs, 5 and 50 prompts, nothing written")
    parser.add_argument("--resident-after", type=int, nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.resident_after:
        print(json.dumps(resident_after(tuple(options.resident_after))))
        return 0
    from safety_steering_pack.safety_steering.files import write_result

    torch.set_num_threads(THREADS)
    load = [round(value, 2) for value in os.getloadavg()]
    rows = [memory((5, 50) if options.quick else PROMPTS), timing(4 if options.quick else PAIRS)]
    print(json.dumps(rows, indent=1))
    if options.quick:
        return 0
    about = {
        "load_before": load,
        "model": {**SHAPE, "num_layers": LAYERS, "dtype": "bfloat16", "latent": LATENT, "steps": STEPS, "cfg": CFG},
        "memory_model": {"latent": MEMORY_LATENT, "text_tokens": MEMORY_TEXT, "steps": 1, "cfg": 1.0},
        "threads": THREADS,
    }
    write_result(RESULTS, "python tools/start.py capture", [SEED], rows, **about)
    kept, timed = rows
    return int(kept["ratio"] > MEMORY_BAR or timed["ratio_ci"][1] > TIME_BAR)


if __name__ == "__main__":
    sys.exit(main())
