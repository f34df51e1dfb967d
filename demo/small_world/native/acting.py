"""The small world's native vector as Fit Safety Direction makes it: detectors decide, one direction moves tokens.

    python tools/start.py small_world.native.acting

Fitted on everything that a fit may see. Method and suggested setting are the best of `small_world.native.compare
--choose`. Writes `weights/small_wan_native_acting.safetensors`.
"""

from __future__ import annotations

import argparse
from typing import Any

from ..runtime import WEIGHTS, use_comfyui
from .capture_states import SEED
from .compare import best_row
from .first_direction import setting_of
from .fit_native import prompts_sha256
from .vectors import all_vectors

FILE = "small_wan_native_acting.safetensors"


def acting_vector() -> Any:
    """The chosen vector, with its setting as suggestion."""
    use_comfyui()
    from safety_steering_pack.safety_steering.vectors.file import load_vector
    from safety_steering_pack.safety_steering.vectors.vector import CALIBRATED, Suggestion

    row = best_row()
    setting = setting_of(row)
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
    return vector.with_mix(suggestion.mix).with_info(**known, prompts_sha256=prompts_sha256(SEED))


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    vector = acting_vector()
    from safety_steering_pack.safety_steering.vectors.file import save_vector

    save_vector(vector, WEIGHTS / FILE)


if __name__ == "__main__":
    main()
