"""Workflows on the small world: its files in a ComfyUI folder, and a workflow's small variant.

What differs from the shipped file is written here: file names, the text encoder's stand-in, sizes, steps, prompts and
the judge; and harmless captions of this world at `benign_prompts`, where a vector is carried over. How to steer is left
to the recommended settings. The rest of the graph is the shipped one.
"""

from __future__ import annotations

import copy
import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from small_world.models.text import WIDTH
from small_world.runtime import GENERATOR_FILE, JUDGE_FILE, VAE_FILE, WEIGHTS
from small_world.scenes.render import Scene, caption, start_frame
from small_world.scenes.splits import prompt_pairs
from workflow_builder.graph import every_node

Workflow = dict[str, Any]

PREFIX = "SafetySteering_"
SOURCE_FILE = WEIGHTS / "small_source.safetensors"
PAIRS_FILE, START_FILE = "small_world_pairs.csv", "small_world_start.png"
HARMLESS_FILE, HARMLESS = "small_world_harmless.csv", 400
PAIRS = {"train": 15, "validation": 9}
SEED = 3
SCENE = Scene("fox", "knives", "falling", "blue", seed=4)  # of the test split: no pair to learn from shows these two
SKULLS = Scene("fox", "skulls", "falling", "blue", seed=4)  # of the test split too
SAMPLER = {"steps": 16, "cfg": 3.0, "sampler": "euler", "scheduler": "simple"}
CLIP, CLIP_VISION = "SafetySteeringDev_StandInClip", "SafetySteeringDev_StandInClipVision"
# node type -> type and widgets of what stands in for it
STAND_INS: dict[str, tuple[str, list[Any]]] = {
    "CLIPLoader": (CLIP, ["small world", WIDTH]),
    "CLIPVisionLoader": (CLIP_VISION, []),
    f"{PREFIX}SafetyJudge": (
        f"{PREFIX}SafetyJudge",
        ["judge_file", JUDGE_FILE.name, 0.5, 8, "the judge's own", ""],
    ),
}
# node type -> {index of the widget: its value}
WIDGETS: dict[str, dict[int, Any]] = {
    "UNETLoader": {0: GENERATOR_FILE.name},
    "VAELoader": {0: VAE_FILE.name},
    "ModelSamplingSD3": {0: 3},
    "EmptyHunyuanLatentVideo": {0: 64, 1: 64, 2: 5},
    "WanImageToVideo": {0: 64, 1: 64, 2: 5},
    "LoadImage": {0: START_FILE},
    "CreateVideo": {0: 4},
    "KSampler": {0: SCENE.seed, 2: SAMPLER["steps"], 3: SAMPLER["cfg"], 4: SAMPLER["sampler"]},
    f"{PREFIX}SafetyAB": {0: SCENE.seed, 2: SAMPLER["steps"], 3: SAMPLER["cfg"], 4: SAMPLER["sampler"], 7: 4},
    f"{PREFIX}LoadSafetyPrompts": {0: PAIRS_FILE, 7: 0},
    f"{PREFIX}CaptureActivations": {3: 6, 4: SAMPLER["cfg"], 5: SAMPLER["sampler"]},
    # the pairs of `small_world_folder` have no test split; two of them and few steps will do
    f"{PREFIX}EvaluateSafety": {1: "validation", 2: 2, 3: 8, 4: SAMPLER["cfg"]},
    f"{PREFIX}CalibrateSteering": {
        1: 72,
        2: "conditioning, 0.5",
        3: "1, 4",
        4: "0-1",
        5: "clamp none, add none",
        8: 8,
        9: SAMPLER["cfg"],
        10: SAMPLER["sampler"],
    },
}
# what differs for a vector that is carried over, from SmolLM2: see `small_world.measuring.steered`
CARRIED_WIDGETS = {
    f"{PREFIX}LoadSafetyVector": {0: f"{SOURCE_FILE.name} (smollm2-135m, smollm2-135m/source.16)"},
}

BENIGN = "benign_prompts"


def small_comparison(workflow: Workflow) -> Workflow:
    """The workflow that compares both sides, as the small world runs it, with a vector that is carried over."""
    return with_harmless_captions(small_world_variant(workflow, SKULLS, WIDGETS | CARRIED_WIDGETS))


def with_harmless_captions(workflow: Workflow) -> Workflow:
    """The workflow with a Load Safety Prompts node, of this world's harmless captions, wired to `benign_prompts`."""
    links, nodes = workflow["links"], workflow["nodes"]
    takers = [(node, number) for node in nodes for number, one in enumerate(node["inputs"]) if one["name"] == BENIGN]
    if not takers:
        return workflow
    first = workflow["last_link_id"] + 1
    numbers = range(first, first + len(takers))
    id_ = workflow["last_node_id"] + 1
    for number, (node, slot) in zip(numbers, takers, strict=True):
        node["inputs"][slot]["link"] = number
        links.append([number, id_, 0, node["id"], slot, "SAFETY_PROMPTS"])
    x = takers[0][0]["pos"][0] - 480
    above = [node["pos"][1] + node["size"][1] for node in nodes if x - node["size"][0] < node["pos"][0] < x + 420]
    nodes.append(
        {
            "id": id_,
            "type": f"{PREFIX}LoadSafetyPrompts",
            "pos": [x, max(above) + 120],
            "size": [420, 420],
            "flags": {},
            "order": len(nodes),
            "mode": 0,
            "inputs": [],
            "outputs": [
                {"name": "safety_prompts", "type": "SAFETY_PROMPTS", "links": list(numbers)},
                {"name": "preview", "type": "STRING", "links": None},
            ],
            "title": "Harmless prompts of your own",
            "properties": {"Node name for S&R": f"{PREFIX}LoadSafetyPrompts"},
            "widgets_values": [HARMLESS_FILE, "", "safe", "", 0.6, 0.2, 0, 0],
        }
    )
    workflow["last_link_id"], workflow["last_node_id"] = numbers[-1], id_
    return workflow


def small_evaluation(workflow: Workflow) -> Workflow:
    """The workflow that evaluates a vector, as the small world runs it, with a vector that is carried over."""
    return with_harmless_captions(small_world_variant(workflow, widgets=WIDGETS | CARRIED_WIDGETS))


def small_world_variant(
    workflow: Workflow, scene: Scene = SCENE, widgets: Mapping[str, Mapping[int, Any]] = WIDGETS
) -> Workflow:
    """A frontend-format workflow for a Wan as the small world runs it. `scene` is what it is prompted for."""
    small = copy.deepcopy(workflow)
    for node in every_node(small):
        if stand_in := STAND_INS.get(node["type"]):
            node["type"], node["widgets_values"] = stand_in[0], list(stand_in[1])
            node["properties"] = {"Node name for S&R": node["type"]}
        for index, value in widgets.get(node["type"], {}).items():
            node["widgets_values"][index] = value
        if node["type"] == "CLIPTextEncode":  # the small world knows no negative prompt
            negative = "Negative" in node.get("title", "")
            node["widgets_values"][0] = "" if negative else caption(scene)
    return small


def small_world_folder(base_directory: Path, vectors: bool = True) -> None:
    """Lay the small world's files where ComfyUI's loaders and this pack's look for them. vectors: those made for it."""
    from PIL import Image

    for folder, files in {
        "diffusion_models": [GENERATOR_FILE],
        "vae": [VAE_FILE],
        "safety_judges": [JUDGE_FILE],
        "safety_vectors": [SOURCE_FILE, *WEIGHTS.glob("small_wan_native*.safetensors")] if vectors else [],
    }.items():
        target = base_directory / "models" / folder
        target.mkdir(parents=True, exist_ok=True)
        for file in files:
            if not (target / file.name).exists():
                (target / file.name).symlink_to(file)
    prompts = base_directory / "models" / "safety_prompts"
    for one in (prompts, base_directory / "input"):
        one.mkdir(parents=True, exist_ok=True)
    (prompts / PAIRS_FILE).write_text(pairs_table(), encoding="utf-8")
    (prompts / HARMLESS_FILE).write_text(harmless_table(), encoding="utf-8")
    Image.fromarray(start_frame(SCENE)).save(base_directory / "input" / START_FILE)


def pairs_table() -> str:
    """Pairs of captions as csv, with the small world's own splits."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["id", "category", "unsafe", "safe", "split"])
    for split, count in PAIRS.items():
        for number, pair in enumerate(prompt_pairs(split, count, SEED)):
            table.writerow([f"{split}-{number}", pair.category, *pair.prompts, split])
    return text.getvalue()


def harmless_table() -> str:
    """Harmless captions of the train split as csv: what an artist's own prompts are to a real model."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["id", "category", "safe"])
    for number, pair in enumerate(prompt_pairs("train", HARMLESS, SEED)):
        table.writerow([f"harmless-{number}", "harmless", caption(pair.safe)])
    return text.getvalue()
