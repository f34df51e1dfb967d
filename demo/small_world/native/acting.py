"""The small world's native vector as Fit Safety Direction makes it: detectors decide, one direction moves tokens.

    python tools/start.py small_world.native.acting --choose   candidates on validation -> acting_validation.json
    python tools/start.py small_world.native.acting            fit on everything, with the chosen setting -> weights/

The candidates are measured on unsafe elements that their fits did not see (`held_out`). `first_direction.choose` is the
rule of choice.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from ..files import save_result
from ..measuring.settings import WorldSetting
from ..runtime import RESULTS, WEIGHTS, use_comfyui
from .capture_states import SEED
from .compare import held_out_rows
from .first_direction import choose, report, setting_of
from .fit_native import WHOLE, prompts_sha256
from .vectors import DIFFERING, DIFFERING_LDA, TEXT, all_vectors

FILE = "small_wan_native_acting.safetensors"
VALIDATION_FILE = RESULTS / "acting_validation.json"
PER_FOLD, FOLD_SEED = 25, 6
ONE = {WHOLE: 1.0}


def candidates() -> list[WorldSetting]:
    """What validation chooses from: direction, strength, token threshold, false alarm."""
    found = (
        (DIFFERING, 4.0, -2.0, 0.02),
        (DIFFERING, 6.0, -2.0, 0.02),
        (DIFFERING, 6.0, -2.0, 0.1),
        (DIFFERING_LDA, 8.0, -2.0, 0.1),
    )
    return [
        WorldSetting(
            f"candidate {number}",
            vector,
            "native",
            TEXT,
            "clamp",
            "none",
            "prompt",
            -4.0,
            strength,
            mix=ONE,
            false_alarm=alarm,
            token_threshold=token,
        )
        for number, (vector, strength, token, alarm) in enumerate(found, 1)
    ]


def choose_all(processes: int) -> None:
    """Measure every candidate; the best is marked."""
    rows = held_out_rows(candidates(), PER_FOLD, FOLD_SEED, processes)
    choose(rows)["chosen"] = True
    report(rows)
    save_result(VALIDATION_FILE, command(), [FOLD_SEED], rows)


def chosen() -> tuple[WorldSetting, dict[str, Any]]:
    """The setting that validation chose, and its row."""
    row = next(row for row in json.loads(VALIDATION_FILE.read_text())["rows"] if row["chosen"])
    return setting_of(row), row


def write() -> None:
    """Fit on every element that a fit may see and write the vector, with the chosen setting as its suggestion."""
    use_comfyui()
    from safety_steering_pack.safety_steering.vectors.file import load_vector, save_vector
    from safety_steering_pack.safety_steering.vectors.vector import CALIBRATED, Suggestion

    setting, row = chosen()
    vector = load_vector(all_vectors({setting.vector}) / setting.vector)
    suggestion = Suggestion(
        strength=setting.strength,
        hook_points=setting.hook_points,
        intervention=setting.kind,
        mix=dict(setting.mix),
        norm=setting.norm,
        gate=setting.gate,
        threshold=setting.threshold,
        false_alarm=setting.false_alarm,
        token_threshold=setting.token_threshold,
        branch="both",
        basis=CALIBRATED,
        basis_model=vector.info.model_name,
        basis_judge="the small judge",
        basis_n=row["n_unsafe"] + row["n_benign"],
    )
    known = {"suggestion": suggestion, "validated_on": (vector.info.model_name,), "licence": "CC0-1.0"}
    vector = vector.with_mix(suggestion.mix).with_info(**known, prompts_sha256=prompts_sha256(SEED))
    save_vector(vector, WEIGHTS / FILE)


def command() -> str:
    return " ".join(["python tools/start.py small_world.native.acting", *sys.argv[1:]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--choose", action="store_true", help="choose on validation; without it, write the vector")
    parser.add_argument("--processes", type=int, default=0, help="how many work at once; 0 for one a core")
    options = parser.parse_args()
    if options.choose:
        choose_all(options.processes)
    else:
        write()


if __name__ == "__main__":
    main()
