"""`make demo`: eight unsafe and eight benign prompts of the small world in a real ComfyUI server, plain and steered.

    .venv/bin/python tools/start.py run

The graph is the shipped one: stock loaders and KSampler, with Safe Model between them and no widget touched, and
harmless captions at its benign_prompts. So the bundled portable vector is fitted to this model first, which takes a
minute. Every video is judged; the numbers stand beside the committed table that they are a small sample of. Writes a
labelled contact sheet, a side-by-side video and the table to ``demo/out/``, and fails if steering changed no unsafe
prompt's video.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPO_ROOT = Path(__file__).resolve().parents[1]

import numpy as np
from comfy_server import ComfyServer
from PIL import Image
from safety_steering_pack.commands.api_graph import NodeRef, PromptGraph
from small_world.files import read_rows, save_result
from small_world.measuring.pictures import side_by_side, write_video
from small_world.models.judge import load_judge
from small_world.models.text import WIDTH
from small_world.portable.out_of_the_box import RESULT_FILE
from small_world.portable.rule import style
from small_world.runtime import GENERATOR_FILE, VAE_FILE, use_comfyui
from small_world.scenes.render import Scene, caption
from small_world.scenes.splits import prompt_pairs

OUT = REPO_ROOT / "demo" / "out"
PAIRS, SEED = 8, 1
HARMLESS = "small_world_harmless.txt"
LOAD_DEFAULTS = {"columns": "", "categories": "", "train": 0.6, "validation": 0.2, "split_seed": 0, "limit": 0}
FIT_TIMEOUT = 900.0  # seconds; the first steered video waits for the fit
SAMPLER = {"steps": 16, "cfg": 3.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}


@dataclass(frozen=True, eq=False)
class Made:
    """One video (5, 64, 64, 3) uint8 and what Steering Report said, empty if it was not steered."""

    video: np.ndarray
    report: str = ""


def prepare(base_directory: Path) -> None:
    """Lay the small world's files where the stock loaders look for them, and its harmless captions as a prompt file."""
    for folder, file in {"diffusion_models": GENERATOR_FILE, "vae": VAE_FILE}.items():
        target = base_directory / "models" / folder
        target.mkdir(parents=True)
        (target / file.name).symlink_to(file)
    prompts = base_directory / "models" / "safety_prompts"
    prompts.mkdir(parents=True)
    (prompts / HARMLESS).write_text("\n".join(style()) + "\n", encoding="utf-8")


def safe_model(graph: PromptGraph, model: NodeRef) -> NodeRef:
    """Safe Model as it is dragged in, with harmless prompts connected."""
    clip = graph.add("SafetySteeringDev_StandInClip", kind="small world", width=WIDTH)
    harmless = graph.add("SafetySteering_LoadSafetyPrompts", LOAD_DEFAULTS, prompts=HARMLESS, unpaired="safe")
    return graph.add("SafetySteering_SafeModel", model=model[0], clip=clip[0], benign_prompts=harmless[0])


def make(server: ComfyServer, scene: Scene, steer: bool) -> Made:
    """Generate one scene's video in the server; without `steer` the pack's nodes are left out."""
    graph = PromptGraph()
    loaded = graph.add("UNETLoader", unet_name=GENERATOR_FILE.name, weight_dtype="default")
    model = graph.add("ModelSamplingSD3", model=loaded[0], shift=3.0)
    if steer:
        model = safe_model(graph, model)
    positive, negative = (graph.add("SafetySteeringDev_MiniLMTextEncode", text=text) for text in (caption(scene), ""))
    latent = graph.add("EmptyHunyuanLatentVideo", width=64, height=64, length=5, batch_size=1)
    sampled = graph.add(
        "KSampler",
        {**SAMPLER, "seed": scene.seed},
        model=model[0],
        positive=positive[0],
        negative=negative[0],
        latent_image=latent[0],
    )
    vae = graph.add("VAELoader", vae_name=VAE_FILE.name)
    images = graph.add(
        "SaveImage", images=graph.add("VAEDecode", samples=sampled[0], vae=vae[0])[0], filename_prefix="small_world"
    )
    report = None
    if steer:
        report = graph.add("SafetySteering_SteeringReport", model=model[0], samples=sampled[0])
    done = server.client.run(graph.prompt, FIT_TIMEOUT).succeeded()
    frames = [Image.open(server.output_file(shown)).convert("RGB") for shown in done.outputs[images.id]["images"]]
    return Made(np.stack([np.asarray(frame) for frame in frames]), done.text(report.id) if report else "")


def committed_rows() -> list[dict[str, Any]]:
    """The unsteered row and that of the same graph in the committed table."""
    text = [row for row in read_rows(RESULT_FILE) if row["task"] == "t2v"]
    return [next(row for row in text if row["direction"] == "none"), next(row for row in text if row["chosen"])]


def summarise(name: str, verdict: Any, scenes: list[Scene]) -> dict[str, Any]:
    """One row of the demo's table; the first `PAIRS` videos are of unsafe prompts, the rest of benign ones."""
    usable, faithful = verdict.usable(scenes), verdict.faithful(scenes)
    return {
        "setting": name,
        "asr": float(verdict.unsafe[:PAIRS].mean()),
        "usable": float(usable[:PAIRS].mean()),
        "benign_fidelity": float(faithful[PAIRS:].mean()),
        "n_unsafe": PAIRS,
        "n_benign": len(scenes) - PAIRS,
    }


def show(rows: list[dict[str, Any]], committed: list[dict[str, Any]]) -> None:
    """The demo's rows above the committed ones."""
    print(f"\n  {'':34}{'n':>10}{'ASR':>8}{'usable':>9}{'benign fidelity':>18}")
    for title, table in (("this run", rows), ("committed: the test split", committed)):
        for row in table:
            count = f"{row['n_unsafe']}+{row['n_benign']}"
            numbers = f"{row['asr']:8.1%}{row['usable']:9.1%}{row['benign_fidelity']:18.1%}"
            print(f"  {title + ', ' + row['setting']:34}{count:>10}{numbers}")


def verdicts(verdict: Any, scenes: list[Scene]) -> list[str]:
    """What the judge says of each video, in a word or two."""
    usable, faithful = verdict.usable(scenes), verdict.faithful(scenes)
    words = []
    for i, scene in enumerate(scenes):
        good = usable[i] if scene.unsafe else faithful[i]
        words.append(
            "unsafe"
            if verdict.unsafe[i]
            else ("safe, usable" if scene.unsafe else "as asked")
            if good
            else "safe, spoilt"
        )
    return words


def main() -> int:
    use_comfyui()
    import torch

    torch.set_num_threads(1)
    OUT.mkdir(parents=True, exist_ok=True)
    committed = committed_rows()
    pairs = prompt_pairs("test", PAIRS, SEED)
    unsafe, benign = [pair.unsafe for pair in pairs], [pair.safe for pair in pairs]
    scenes = unsafe + benign
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="safety-steering-") as folder:
        prepare(Path(folder))
        print("Starting ComfyUI ...", flush=True)
        with ComfyServer(Path(folder)) as server:
            plain, steered = [], []
            for number, scene in enumerate(scenes, 1):
                print(f"  {number:2} of {len(scenes)}  {caption(scene)}", flush=True)
                plain.append(make(server, scene, steer=False))
                steered.append(make(server, scene, steer=True))
    judge = load_judge()
    videos = [np.stack([one.video for one in made]) for made in (plain, steered)]
    before, after = map(judge, videos)
    rows = [summarise(name, verdict, scenes) for name, verdict in (("unsteered", before), ("steered", after))]
    show(rows, committed)
    changed = [not np.array_equal(*pair) for pair in zip(*videos, strict=True)]
    unsafe_changed, benign_changed = sum(changed[:PAIRS]), sum(changed[PAIRS:])
    print(f"\n  Changed: {unsafe_changed} of {PAIRS} unsafe prompts' videos, {benign_changed} of {PAIRS} benign.")
    print(f"  An unsafe prompt's report: {steered[0].report}")
    print(f"  A benign prompt's report:  {steered[-1].report}")
    print(f"  {time.monotonic() - started:.0f} s")
    words = [verdicts(verdict, scenes) for verdict in (before, after)]
    pictures = side_by_side(videos[0], videos[1], [caption(scene) for scene in scenes], words[0], words[1])
    pictures[-1].save(OUT / "contact_sheet.png")
    write_video(pictures, OUT / "side_by_side.mp4")
    save_result(OUT / "demo.json", "make demo", [SEED], rows)
    if not unsafe_changed:
        print("The demo FAILED: steering changed no unsafe prompt's video.", file=sys.stderr)
        return 1
    print(f"\n  Contact sheet, video and numbers: {OUT}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
