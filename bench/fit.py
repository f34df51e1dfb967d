"""Time and memory of a fit: n = 2 300 rows, 5 120 channels, 40 blocks, one category, one sigma bin.

    .venv/bin/python tools/start.py fit           (needs 4 GB of disk for a temporary folder)

Synthetic activations are written as Capture Activations writes them, every block its own. A process of its own then
fits the vector with all statistics (20 pairs of halves, 200 permutations). Reading is timed separately, as the time in
`Activations.read` and `rows`. Peak memory is the peak resident set of the process, with PyTorch and mapped files. Ends
with exit code 1 if a bar is missed: 10 s without reading, and 1 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import start
import torch

RESULTS = Path(__file__).parent / "results" / "fit.json"
ROWS, WIDTH, BLOCKS, SHARD = 2300, 5120, 40, 100
SEED = 1
HALVES, PERMUTATIONS = 20, 200
SECONDS, PEAK_BYTES = 10.0, 1e9
THREADS = 2


def write_activations(folder: Path) -> None:
    """Pairs of twins, 80 % of them for training; 10 % of the channels differ between safe and unsafe."""
    from safety_steering_pack.safety_steering.activations import SAFE, UNSAFE, Activations, Row, Source, States

    names = [f"block.blocks.{i}.image" for i in range(BLOCKS)]
    source = Source({name: (f"bench/{name}", WIDTH) for name in names}, (0.0, 1.0), block_counts={"blocks": BLOCKS})
    activations = Activations.create(folder, source)
    generator = torch.Generator().manual_seed(SEED)
    for first in range(0, ROWS, SHARD):
        labels = [(UNSAFE, SAFE)[i % 2] for i in range(first, first + SHARD)]
        rows = [
            Row(f"row{first + i}", label, "one", f"pair{(first + i) // 2}", ("train", "validation")[i % 10 >= 8], 12)
            for i, label in enumerate(labels)
        ]
        shift = torch.zeros(SHARD, 1, WIDTH)
        shift[0::2, :, : WIDTH // 10] = -0.1
        states = {}
        for name in names:
            pooled = torch.randn(SHARD, 1, WIDTH, generator=generator).add_(shift)
            states[name] = States(pooled, pooled)
        activations.append(rows, states)


def measure(folder: Path) -> dict[str, Any]:
    """One fit in this process."""
    from safety_steering_pack.safety_steering.activations import Activations
    from safety_steering_pack.safety_steering.directions.fitting import FitSettings
    from safety_steering_pack.safety_steering.directions.native import fit_vector

    torch.set_num_threads(THREADS)

    class Timed(Activations):
        seconds = 0.0

        def read(self, hook_point: str) -> Any:
            start = time.perf_counter()
            states = super().read(hook_point)
            Timed.seconds += time.perf_counter() - start
            return states

        def rows(self) -> Any:
            start = time.perf_counter()
            rows = super().rows()
            Timed.seconds += time.perf_counter() - start
            return rows

    before, load = _peak(), [round(value, 2) for value in os.getloadavg()]
    start = time.perf_counter()
    fitted = fit_vector(Timed.open(folder), FitSettings(halves=HALVES, permutations=PERMUTATIONS, seed=SEED))
    seconds = time.perf_counter() - start
    return {
        "setting": f"n {ROWS}, D {WIDTH}, {BLOCKS} blocks, mean difference, all evidence",
        "fit_seconds": round(seconds - Timed.seconds, 2),
        "reading_seconds": round(Timed.seconds, 2),
        "peak_bytes": _peak(),
        "peak_bytes_before": before,
        "median_auc": sorted(row["auc"] for row in fitted.table)[len(fitted.table) // 2],
        "threads": THREADS,
        "load_before": load,
    }


def _peak() -> int:
    # of this program alone: getrusage's peak includes that of its parent before exec
    status = Path("/proc/self/status").read_text()
    return next(1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(Path(options.measure))))
        return 0
    from safety_steering_pack.safety_steering.files import write_result

    with tempfile.TemporaryDirectory(prefix="safety-steering-fit-") as folder:
        write_activations(Path(folder) / "activations")
        command = start.command("fit", "--measure", str(Path(folder) / "activations"))
        row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    write_result(RESULTS, "python tools/start.py fit", [SEED], [row])
    print(json.dumps(row, indent=1))
    return int(row["fit_seconds"] >= SECONDS or row["peak_bytes"] >= PEAK_BYTES)


if __name__ == "__main__":
    sys.exit(main())
