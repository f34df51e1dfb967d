"""The cost of steering: steered over unsteered model calls, paired and interleaved in one process, and peak memory.

    .venv/bin/python tools/start.py overhead --memory    # peak memory, 5 minutes -> bench/results/memory.json
    .venv/bin/python tools/start.py overhead             # time, 35 minutes -> bench/results/overhead.json
    .venv/bin/python tools/start.py overhead --predict   # counts for a GPU, seconds -> bench/results/predicted.json
    .venv/bin/python tools/start.py overhead --quick     # time with few blocks and pairs; writes nothing

bench/README.md says how it is measured, and the bars. `make bench` runs the first three.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import start
import torch
from predict import GPUS, TOKENS, block_flops, hook_bytes_per_token, predict
from safety_steering_pack.safety_steering.evaluation.rates import bootstrap
from safety_steering_pack.safety_steering.files import commit
from wan import SHAPE, Call, build, in_sampler_run

RESULTS = Path(__file__).parent / "results" / "overhead.json"
MEMORY, PREDICTED = RESULTS.with_name("memory.json"), RESULTS.with_name("predicted.json")
SEED = 0
LATENT = (16, 1, 16, 16)
LARGE_LATENT = (16, 9, 60, 60)
READ = "what all blocks read"
BARS = {"one block": 1.02, "all blocks": 1.05, READ: 1.05}
PAIRS = {"one block": 40, "all blocks": 30, READ: 30}
CALLS = 2  # of each side in a pair; the faster one counts, since a disturbance can only slow a call down
MEMORY_BAR = 1.01
WARM_UP = 2
COUNTS = "python tools/start.py overhead --predict"


@dataclass(frozen=True)
class SteeredCase:
    """How a row of the table is steered. hooked: a key of `BARS`; `READ` is where all blocks read the text."""

    name: str
    hooked: str
    kind: str
    norm: str
    gate: str = "off"

    @property
    def label(self) -> str:
        return f"{self.name}, {self.hooked}"


WAYS = (
    ("add", "add", "none"),
    ("clamp + token norm", "clamp", "token"),
    ("pooled gate + clamp + token norm", "clamp", "token", "pooled"),
)
CASES = (
    *(SteeredCase(name, hooked, *how) for hooked in ("one block", "all blocks") for name, *how in WAYS),
    SteeredCase(WAYS[2][0], READ, *WAYS[2][1:]),  # the same hook as on the blocks' outputs, so one row is enough
)


def steered(patcher: Any, case: SteeredCase) -> Any:
    """`patcher` with Apply Safety Steering on it: one category, always acting."""
    from safety_steering_pack.bridge.steering.apply import apply_steering
    from safety_steering_pack.bridge.steering.settings import SteeringSettings
    from safety_steering_pack.safety_steering.hook_point import CROSS_ATTENTION, select_hook_points
    from safety_steering_pack.safety_steering.steering.interventions import Intervention
    from tiny.vectors import vector_for

    vector = vector_for(patcher.model.diffusion_model, reads=True)
    blocks = ",".join(name for name in vector.hook_points if name.is_block)
    text = {"one block": "0.5", "all blocks": blocks, READ: CROSS_ATTENTION}[case.hooked]
    chosen = select_hook_points(text, vector.hook_points, vector.info.block_counts)
    how = Intervention(case.kind, case.norm, case.gate, threshold=10.0)
    return apply_steering(patcher, vector, SteeringSettings(1.0, chosen, how, window=(0.0, 1.0)))


def timed(call: Call) -> float:
    """CPU seconds of a call on the one thread of this process, without those of other processes."""
    started = time.process_time()
    call()
    return time.process_time() - started


def ratio_of(plain: Call, steered_call: Call, steered_first: bool) -> float:
    """steered / unsteered seconds of one pair: `CALLS` of each in turns, the faster of each side."""
    order = (steered_call, plain) if steered_first else (plain, steered_call)
    times = [(timed(order[0]), timed(order[1])) for _ in range(CALLS)]
    first, second = (min(side) for side in zip(*times, strict=True))
    return first / second if steered_first else second / first


def paired_ratios(patcher: Any, case: SteeredCase, pairs: int) -> list[float]:
    """The ratios of `pairs` pairs; each pair's order is the reverse of the last one's.

    Two sampler runs are open at once, one inside the other, so that calls of both can take turns.
    """
    ratios: list[float] = []

    def measure(plain: Call, steered_call: Call) -> None:
        for _ in range(WARM_UP):
            plain(), steered_call()
        ratios.extend(ratio_of(plain, steered_call, steered_first=pair % 2 == 1) for pair in range(pairs))

    def outer(plain: Call) -> None:
        in_sampler_run(steered(patcher, case), LATENT, lambda call: measure(plain, call))

    in_sampler_run(patcher, LATENT, outer)
    return ratios


def peak_memory(index: int) -> None:
    """Print the peak of resident memory that one model call reaches. Runs in a process of its own.

    Two blocks and a large latent, so that the weights do not hide what a call needs. -1: unsteered.
    """
    torch.set_num_threads(2)
    patcher = build(layers=2)
    chosen = patcher if index < 0 else steered(patcher, CASES[index])
    in_sampler_run(chosen, (16, 1, 16, 16), lambda call: call())  # so that what a first call loads is not measured
    print(json.dumps(_peak_of(chosen)))


def _peak_of(patcher: Any) -> dict[str, int]:
    def resident(key: str) -> int:
        status = Path("/proc/self/status").read_text()
        return next(1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith(key))

    Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the present resident memory
    before = resident("VmRSS")
    in_sampler_run(patcher, LARGE_LATENT, lambda call: call())
    return {"before": before, "peak": resident("VmHWM")}


def peaks() -> dict[str, dict[str, int]]:
    """Peak memory of a call of each case, and unsteered ("none")."""
    # glibc keeps some freed blocks; with this, resident memory is the memory in use
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**18)}
    found = {}
    for index in range(-1, len(CASES)):
        command = start.command("overhead", "--peak-of", str(index))
        output = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
        found[CASES[index].label if index >= 0 else "none"] = json.loads(output.splitlines()[-1])
    return found


def row(case: SteeredCase, ratios: list[float], peak: dict[str, int] | None, unsteered: dict[str, int] | None) -> dict:
    measured = {
        "setting": case.label,
        "ratio_median": round(median(ratios), 4),
        "ratio_ci": bootstrap(ratios, np.median),
        "pairs": len(ratios),
        "bar": BARS[case.hooked],
    }
    if peak and unsteered:
        measured["peak_memory_ratio"] = round(peak["peak"] / unsteered["peak"], 4)
        measured["working_memory_ratio"] = round(
            (peak["peak"] - peak["before"]) / (unsteered["peak"] - unsteered["before"]), 4
        )
    return measured | counted(case)


def counted(case: SteeredCase) -> dict[str, Any]:
    """The bytes that a hook moves, and the ratio that they predict; both without measuring time."""
    how = (case.kind, case.norm, case.gate)
    return {
        "hook_bytes_per_token": hook_bytes_per_token(*how),
        "predicted": predict(*how, case.hooked != "one block"),
    }


def missed(rows: list[dict[str, Any]]) -> list[str]:
    """The settings that miss their bar."""
    return [
        measured["setting"]
        for measured in rows
        if measured["ratio_ci"][1] > measured["bar"] or measured.get("peak_memory_ratio", 0) > MEMORY_BAR
    ]


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        f"{'setting':46} {'ratio':>7}  {'95 % interval':16} {'bar':>5}  {'memory':>7}  predicted at 720p, 480p on a GPU"
    ]
    for r in rows:
        low, high = r["ratio_ci"]
        predicted = "  ".join(f"{value:.4f}" for value in r["predicted"].values())
        lines.append(
            f"{r['setting']:46} {r['ratio_median']:7.4f}  [{low:.4f}, {high:.4f}] {r['bar']:5.2f}"
            f"  {r.get('peak_memory_ratio', float('nan')):7.4f}  {predicted}"
        )
    return "\n".join(lines)


def write(path: Path, result: dict[str, Any]) -> None:
    from safety_steering_pack.safety_steering.files import write_atomically

    write_atomically(path, (json.dumps(result, indent=1) + "\n").encode())


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--memory", action="store_true", help="measure peak memory instead of time")
    parser.add_argument("--predict", action="store_true", help="count instead of measuring: no time, no model")
    parser.add_argument("--quick", action="store_true", help="2 blocks, 4 pairs, nothing written")
    parser.add_argument("--peak-of", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak_of is not None:
        peak_memory(options.peak_of)
        return 0
    if options.memory:
        write(MEMORY, {"command": "python tools/start.py overhead --memory", "commit": commit(), "peaks": peaks()})
        return 0
    gpu = {"gpu": GPUS, "block_flops": {name: block_flops(tokens) for name, tokens in TOKENS.items()}}
    if options.predict:
        rows = [{"setting": case.label, **counted(case)} for case in CASES]
        write(PREDICTED, {"command": COUNTS, "commit": commit(), **gpu, "rows": rows})
        print("\n".join(json.dumps(row) for row in rows))
        return 0
    torch.set_num_threads(1)
    memory = json.loads(MEMORY.read_text())["peaks"] if MEMORY.exists() else {}
    patcher = build(layers=2 if options.quick else SHAPE["num_layers"])
    rows = []
    for case in CASES:
        ratios = paired_ratios(patcher, case, 4 if options.quick else PAIRS[case.hooked])
        rows.append(row(case, ratios, memory.get(case.label), memory.get("none")))
        print(table(rows[-1:]).splitlines()[-1], flush=True)
    print(f"\n{table(rows)}")
    if options.quick:
        return 0
    result = {
        "command": "python tools/start.py overhead",
        "commit": commit(),
        "seeds": [SEED],
        "model": {**SHAPE, "dtype": "bfloat16", "latent": LATENT, "memory_latent": LARGE_LATENT},
        **gpu,
        "rows": rows,
    }
    write(RESULTS, result)
    if failures := missed(rows):
        print(f"Over the bar: {'; '.join(failures)}")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
