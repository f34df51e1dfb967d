"""The cost of steering in each family of the model map, and in three at real width.

    .venv/bin/python tools/start.py families           # 20 minutes, or hours where the processor has no bfloat16 units
    .venv/bin/python tools/start.py families wan flux  # some families; writes nothing

Paired and interleaved as in overhead.py, CPU time of one thread. A tiny model's call takes milliseconds and is mostly
Python, so that its ratio overstates the cost of a hook: a row also has `call_ms`, and the real widths show the cost of
real models. Without arguments all rows are written to bench/results/families.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from family_cases import CASES
from family_cases.case import FamilyCase, from_config, from_loader, on_meta
from family_cases.harness import Family
from family_cases.image import UNET
from overhead import SEED, WARM_UP, ratio_of, timed, write
from safety_steering_pack.safety_steering.evaluation.rates import bootstrap
from safety_steering_pack.safety_steering.files import commit
from wan import DTYPE, SHAPE, Call

RESULTS = Path(__file__).parent / "results" / "families.json"
PAIRS = 30

LTXV_2B = {"num_attention_heads": 32, "attention_head_dim": 64, "cross_attention_dim": 2048, "caption_channels": 4096}
SDXL = UNET | {
    "model_channels": 320,
    "num_res_blocks": [1, 1, 1],
    "channel_mult": [1, 2, 4],
    "transformer_depth": [0, 1, 2],
    "transformer_depth_output": [0, 0, 1, 1, 2, 2],
    "transformer_depth_middle": 2,
    "num_head_channels": 64,
    "context_dim": 2048,
    "adm_in_channels": 2816,
    "num_classes": "sequential",
    "use_linear_in_transformer": True,
}


def real_widths() -> dict[str, FamilyCase]:
    """Cases at the width of released models, with fewer blocks."""
    ltxv = LTXV_2B | {"num_layers": 4}
    return {
        "wan 1.3B, 4 of 30 blocks": replace(
            CASES["wan"],
            build=from_config("WAN21_T2V", image_model="wan2.1", model_type="t2v", **{**SHAPE, "num_layers": 4}),
            latent=(1, 16, 3, 16, 16),
        ),
        "ltxv 2B, 4 of 28 blocks": replace(
            CASES["ltxv"],
            build=from_loader(on_meta("comfy.ldm.lightricks.model", "LTXVModel", **ltxv), {"transformer": ltxv}),
            latent=(1, 128, 3, 8, 8),
        ),
        "sdxl, 11 of 70 blocks": replace(CASES["sdxl"], build=from_config("SDXL", **SDXL), latent=(1, 4, 32, 32)),
    }


def in_case_run(case: FamilyCase, patcher: Any, then: Callable[[Call], None]) -> None:
    """Open a sampler run on `patcher` at cfg 1, and hand `then` a function that makes one model call inside it."""
    import comfy.sample
    import comfy.samplers

    def sampler(model: Any, x: Any, sigmas: torch.Tensor, extra_args: dict[str, Any], **_: Any) -> Any:
        then(lambda: model(x, sigmas[0] * x.new_ones(len(x)), **extra_args))
        return x

    guider = comfy.samplers.CFGGuider(case.prepare(patcher))
    guider.set_conds(case.entry(1), case.entry(2))
    guider.set_cfg(1.0)
    latent = case.latents()
    noise = comfy.sample.prepare_noise(latent, 3)
    sigmas = comfy.samplers.calculate_sigmas(patcher.model.model_sampling, "simple", 4)[1:]
    mask = case.noise_mask() if case.noise_mask else None
    run = comfy.samplers.KSAMPLER(sampler)
    guider.sample(noise, latent, run, sigmas, denoise_mask=mask, disable_pbar=True, seed=0)


def measure(name: str, case: FamilyCase, size: str) -> list[dict[str, Any]]:
    """Two rows: one block at half depth, and all blocks."""
    from safety_steering_pack.safety_steering.hook_point import select_hook_points

    family = Family(case, DTYPE)
    chosen = {
        "one block": select_hook_points("0.5", family.points, family.shape.block_counts),
        "all blocks": tuple(point for point in family.points if point.is_block and point.stream == "image"),
    }
    rows = []
    for hooked, points in chosen.items():
        ratios: list[float] = []
        calls: list[float] = []

        def compare(plain: Call, steered: Call, ratios: list[float] = ratios, calls: list[float] = calls) -> None:
            for _ in range(WARM_UP):
                plain(), steered()
            for pair in range(PAIRS):
                ratios.append(ratio_of(plain, steered, steered_first=pair % 2 == 1))
                calls.append(timed(plain))

        def outer(plain: Call, points: tuple[str, ...] = points, compare: Any = compare) -> None:
            in_case_run(case, family.steered(points, strength=1.0), lambda call: compare(plain, call))

        in_case_run(case, family.patcher, outer)
        rows.append(
            {
                "setting": f"{name}, {hooked}",
                "size": size,
                "hooks": len(points),
                "ratio_median": round(median(ratios), 4),
                "ratio_ci": bootstrap(ratios, np.median),
                "pairs": len(ratios),
                "call_ms": round(1000 * median(calls), 2),
            }
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    first = {case.family: case for case in reversed(CASES.values())}
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("families", nargs="*", metavar="FAMILY", help="only these: " + ", ".join(first))
    wanted = parser.parse_args().families
    if unknown := [name for name in wanted if name not in first]:
        parser.error(f"there is no family {', '.join(unknown)}; choose from {', '.join(first)}")
    torch.set_num_threads(1)
    rows = [row for name, case in first.items() if not wanted or name in wanted for row in measure(name, case, "tiny")]
    if wanted:
        return
    for name, case in real_widths().items():
        rows += measure(name, case, "real width")
    write(RESULTS, {"command": "python tools/start.py families", "commit": commit(), "seeds": [SEED], "rows": rows})


if __name__ == "__main__":
    main()
