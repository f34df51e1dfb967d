"""What Safe Model does with no widget touched: level 1, the bundled vector, the small world's test split.

    python tools/start.py small_world.portable.out_of_the_box      the test split -> out_of_the_box.json

The vector and the settings are those that `bridge.safe_model.safe_model` makes, which the node calls; videos come from
ComfyUI's sampling path with `apply_steering`. One row has harmless captions in the generator's style at
benign_prompts, as the shipped small workflow has, and one has none. A prompt whose gate stays shut has the unsteered
video; `check` generates some of them to see that they are bit-identical, and so is all of level 0. Each row is written
when it is measured, and a stopped run is resumed.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..files import read_rows, save_result
from ..measuring.measure import PLAIN, measure, reference_features
from ..measuring.rows import row
from ..measuring.sampling import generate
from ..measuring.settings import LABELS, Prompts, WorldSetting, captions, start_frames
from ..measuring.steered import acts_on, movement, steered
from ..runtime import RESULTS, load_generator, load_vae, use_comfyui
from .rule import style
from .vectors import BUNDLED_FILE, SOURCES, TEXT, vectors_folder

RESULT_FILE = RESULTS / "out_of_the_box.json"
TEST = Prompts("test", 200, (1, 2, 3))
TASKS = ("t2v", "i2v")
CHECKED = 8


@dataclass(frozen=True)
class Case:
    """One way to use Safe Model. vector: its file. benign: whether benign_prompts is connected."""

    name: str
    vector: Path = BUNDLED_FILE
    benign: bool = True
    level: float = 1.0
    tasks: tuple[str, ...] = TASKS


SHIPPED = Case("Safe Model")
CASES = (
    SHIPPED,
    Case("Safe Model without benign_prompts", benign=False),
    Case("Safe Model, level 0", level=0.0),
    Case("Safe Model, vector of this world's captions", SOURCES["own"], tasks=("t2v",)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-seed", type=int, default=TEST.per_seed, help="prompts of each of three seeds")
    parser.add_argument("--processes", type=int, default=0, help="how many work at once; 0 for one a core")
    parser.add_argument("--task", choices=TASKS, help="measure this task alone and keep the other's rows")
    arguments = parser.parse_args()
    tasks = (arguments.task,) if arguments.task else TASKS
    rows = [found for found in read_rows(RESULT_FILE) if found["task"] not in tasks] if RESULT_FILE.exists() else []
    for task in tasks:
        prompts = replace(TEST, per_seed=arguments.per_seed, task=task)
        for case in CASES:
            if task in case.tasks:
                rows += measured(case, prompts, arguments.processes, with_plain=case is SHIPPED)
                ordered = sorted(rows, key=lambda found: TASKS.index(found["task"]))
                save_result(RESULT_FILE, command(), list(TEST.seeds), ordered)


def measured(case: Case, prompts: Prompts, processes: int, with_plain: bool) -> list[dict[str, Any]]:
    """The rows of a case on prompts, with that of no steering before it if wanted."""
    setting, told = safe_setting(case)
    reference = _reference(prompts)
    found = measure([PLAIN, setting], prompts, vectors_folder(), processes=processes)
    plain, outcomes = found[PLAIN.name], found[setting.name]
    opened = {label: _acts(setting, prompts, label) for label in LABELS}
    moving = [text for text, acts in zip(_texts(prompts, "unsafe"), opened["unsafe"], strict=True) if acts]
    result = row(setting, outcomes, plain, reference, "test", prompts.task) | {
        "chosen": case is SHIPPED,
        "level": case.level,
        "recommended": told,
        "unsafe_gate_open": round(float(opened["unsafe"].mean()), 4),
        "benign_gate_open": round(float(opened["benign"].mean()), 4),
        "benign_identical": round(1 - float(opened["benign"].mean()), 4),
        "moved_where_open": round(movement(setting, vectors_folder(), moving), 4) if moving else 0.0,
        "identical_checked": check(setting, prompts, opened["benign"]),
    }
    shown = ("setting", "task", "asr", "usable", "benign_loss", "benign_gate_open", "unsafe_gate_open")
    print({name: result[name] for name in shown}, flush=True)
    return [row(PLAIN, plain, plain, reference, "test", prompts.task), result] if with_plain else [result]


@lru_cache
def safe_setting(case: Case) -> tuple[WorldSetting, str]:
    """What Safe Model decides in a case: its setting, whose vector is saved in `vectors_folder`, and its report."""
    use_comfyui()
    from dev_nodes.minilm_text_encode import MiniLMTextEncode, small_world_tokens
    from dev_nodes.stand_in_clip import Clip
    from safety_steering_pack.bridge import folders, safe_model
    from safety_steering_pack.bridge.steering.settings import recommended_settings
    from safety_steering_pack.safety_steering.prompts.prompt_set import PromptRow, PromptSet
    from safety_steering_pack.safety_steering.vectors.file import save_vector

    folders.register_folders()
    folders.folder_paths.add_model_folder_path(folders.VECTORS.folder, str(case.vector.parent))
    benign = [PromptRow(str(number), "benign", safe=text) for number, text in enumerate(style())]
    made = safe_model.safe_model(
        load_generator(),
        Clip(lambda text: MiniLMTextEncode.execute(text)[0], *small_world_tokens()),
        case.vector.name,
        case.level,
        benign=PromptSet(tuple(benign), "harmless captions of this world") if case.benign else None,
    )
    file = f"safe_model_{made.vector.sha256[:16]}.safetensors"
    vectors_folder().mkdir(parents=True, exist_ok=True)
    save_vector(made.vector, vectors_folder() / file)
    how = recommended_settings(made.vector, case.level)
    if how.branch != "both" or how.hook_points != (TEXT,) or how.strengths:
        raise ValueError(f"The recommended settings are {how}; expected one hook point, {TEXT}, and both branches.")
    act = how.intervention
    names = (act.kind, act.norm, act.gate, act.threshold, how.strength, how.window)
    gate = {"false_alarm": act.false_alarm, "token_threshold": act.token_threshold}
    return WorldSetting(case.name, file, "transferred", (TEXT,), *names, dict(made.vector.mix), **gate), made.report


def check(setting: WorldSetting, prompts: Prompts, opened: np.ndarray) -> int:
    """How many of the first benign prompts, all with a shut gate, were generated and found bit-identical.

    Raises:
        ValueError: one was not.
    """
    scenes = [scene for scene, acts in zip(prompts.all_scenes("benign"), opened, strict=True) if not acts][:CHECKED]
    model, vae = load_generator(), load_vae()
    texts, frames = captions(scenes, prompts.task), start_frames(scenes, prompts.task)
    seeds = [scene.seed for scene in scenes]
    models = (model, steered(model, setting, vectors_folder()))
    made = [generate(target, vae, texts, seeds, frames) for target in models]
    if not np.array_equal(*made):
        raise ValueError(f"{setting.name}: a prompt whose gate is shut has another video than without steering.")
    return len(scenes)


def _acts(setting: WorldSetting, prompts: Prompts, label: str) -> np.ndarray:
    return acts_on(setting, vectors_folder(), _texts(prompts, label))


def _texts(prompts: Prompts, label: str) -> list[str]:
    return captions(prompts.all_scenes(label), prompts.task)


@lru_cache
def _reference(prompts: Prompts) -> np.ndarray:
    return reference_features(prompts.all_scenes("benign"), i2v=prompts.task != "t2v")


def command() -> str:
    return " ".join(["python tools/start.py small_world.portable.out_of_the_box", *sys.argv[1:]])


if __name__ == "__main__":
    main()
