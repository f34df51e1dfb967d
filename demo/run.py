"""`make demo`: one text-to-video graph in a real ComfyUI server, three times: plain, steered, and with strength 0.

    .venv/bin/python demo/run.py

The model is a tiny random one, so the pictures mean nothing; what it shows is that the pack loads, steers, reports what
it did, and leaves everything bit for bit alone at strength 0. It fails when any of that does not hold. Pictures and
numbers go to ``demo/out/``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPO_ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(REPO_ROOT / "tools"))

import torch  # noqa: E402
from comfy_server import ComfyServer  # noqa: E402
from graphs import Link, save_latent, wan21_t2v  # noqa: E402
from PIL import Image  # noqa: E402
from playground import prepare  # noqa: E402
from prompt_graph import PromptGraph  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from tiny_models import TINY_MODELS  # noqa: E402

OUT = REPO_ROOT / "demo" / "out"
PROMPT = "a man with a weapon in a forest"
SEED = 20
ZOOM = 3


class DemoFailed(Exception):
    """The demo did not show what it claims."""


@dataclass(frozen=True, eq=False)
class Result:
    """One run: latents (1, 16, T, h, w), frames as files, and the steering report (None without steering)."""

    latents: torch.Tensor
    frames: tuple[Path, ...]
    chart: Path | None = None
    summary: str = ""
    trace: dict[str, Any] | None = None


def steered_by(graph: PromptGraph, model: Link, strength: float) -> Link:
    """Load Safety Vector -> Apply Safety Steering."""
    vector = graph.add("SafetySteering_LoadSafetyVector", vector="wan_t2v_demo.safetensors")
    settings = {
        "strength": strength,
        "intervention": "add",
        "norm": "token",
        "window_start": 0.0,
        "window_end": 0.5,
        "branch": "both",
        "gate": "off",
        "hook_points": "auto",
    }
    return graph.add("SafetySteering_ApplySafetySteering", settings, model=model, safety_vector=vector[0])[0]


def run(server: ComfyServer, name: str, strength: float | None) -> Result:
    """Sample the Wan graph with this strength (None: without the pack's nodes) and decode it."""
    graph = PromptGraph()
    steer = None if strength is None else lambda graph, model: steered_by(graph, model, strength)
    sampled = wan21_t2v(graph, steer, prompt=PROMPT, seed=SEED, steps=10, width=112, height=64, length=9)
    saved = save_latent(graph, sampled.samples, name)
    vae = graph.add("VAELoader", vae_name=TINY_MODELS["wan_vae"].file_name)
    decoded = graph.add("VAEDecode", samples=sampled.samples, vae=vae[0])
    images = graph.add("SaveImage", images=decoded[0], filename_prefix=name)
    report = text = None
    if steer:
        report = graph.add("SafetySteering_SteeringReport", model=sampled.model, samples=sampled.samples)
        text = graph.add("PreviewAny", source=report[1])
    done = server.client.run(graph.prompt).succeeded()
    latents = load_file(server.output_file(done.outputs[saved.id]["latents"][0]))["latent_tensor"]
    frames = tuple(server.output_file(shown) for shown in done.outputs[images.id]["images"])
    if report is None or text is None:
        return Result(latents, frames)
    return Result(
        latents,
        frames,
        chart=server.output_file(done.outputs[report.id]["images"][0]),
        summary=done.text(report.id),
        trace=json.loads(done.text(text.id))[0],
    )


def strip(frames: tuple[Path, ...]) -> Image.Image:
    """All frames side by side, enlarged."""
    pictures = [Image.open(frame).convert("RGB") for frame in frames]
    width, height = pictures[0].size
    sheet = Image.new("RGB", (len(pictures) * (width + 2) - 2, height), "white")
    for index, picture in enumerate(pictures):
        sheet.paste(picture, (index * (width + 2), 0))
    return sheet.resize((sheet.width * ZOOM, sheet.height * ZOOM), Image.Resampling.NEAREST)


def pixels(frames: tuple[Path, ...]) -> torch.Tensor:
    """Frames as (T, H * W * 3) float32 in 0..255."""
    rows = [torch.frombuffer(bytearray(Image.open(f).convert("RGB").tobytes()), dtype=torch.uint8) for f in frames]
    return torch.stack(rows).float()


def compare(plain: Result, other: Result) -> dict[str, Any]:
    """How far two runs lie apart: relative L2 of the latents, mean absolute difference of the frames (of 255)."""
    difference = other.latents - plain.latents
    return {
        "bit_identical": torch.equal(plain.latents, other.latents),
        "latents_relative_l2": float(difference.norm() / plain.latents.norm()),
        "frames_mean_difference": float((pixels(other.frames) - pixels(plain.frames)).abs().mean()),
    }


def check(steered: Result, rows: dict[str, dict[str, Any]]) -> None:
    """Raises DemoFailed unless steering changed the video, says so itself, and strength 0 changed nothing."""
    if rows["steered"]["bit_identical"] or rows["steered"]["frames_mean_difference"] == 0:
        raise DemoFailed("the steered run equals the unsteered one: steering did nothing.")
    if steered.trace is None or steered.trace["status"] != "acted":
        raise DemoFailed(f"the steering report does not say that it acted: {steered.summary}")
    if not rows["strength 0"]["bit_identical"]:
        raise DemoFailed("strength 0 changed the latents; it must leave them bit-identical.")


def commit() -> str:
    """The checked-out commit, or "unknown" outside a git checkout."""
    asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=REPO_ROOT, capture_output=True, text=True)
    return asked.stdout.strip() if asked.returncode == 0 else "unknown"


def main() -> int:
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="safety-steering-") as folder:
        print("Making tiny random-weight models and starting ComfyUI ...", flush=True)
        prepare(Path(folder))
        with ComfyServer(Path(folder)) as server:
            print(f'Wan 2.1 text to video, "{PROMPT}", seed {SEED}, 10 steps\n', flush=True)
            plain = run(server, "unsteered", None)
            steered = run(server, "steered", 1.0)
            off = run(server, "strength_0", 0.0)
        rows = {"steered": compare(plain, steered), "strength 0": compare(plain, off)}
        print(
            f"  {'compared with unsteered':26}{'latents, relative L2':>22}{'frames, of 255':>18}{'bit-identical':>16}"
        )
        for name, row in rows.items():
            numbers = f"{row['latents_relative_l2']:22.4f}{row['frames_mean_difference']:18.2f}"
            print(f"  {name:26}{numbers}{'yes' if row['bit_identical'] else 'no':>16}")
        print(f"\n  Steering report: {steered.summary}\n")
        strip(plain.frames).save(OUT / "unsteered.png")
        strip(steered.frames).save(OUT / "steered.png")
        if steered.chart is not None:
            Image.open(steered.chart).save(OUT / "report.png")
    table = {
        "command": "make demo",
        "commit": commit(),
        "seeds": [SEED],
        "rows": [{"setting": name, **row} for name, row in rows.items()],
        "report": steered.trace,
    }
    (OUT / "demo.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    try:
        check(steered, rows)
    except DemoFailed as failure:
        print(f"The demo FAILED: {failure}", file=sys.stderr)
        return 1
    print(f"The steered video differs, strength 0 does not. Pictures and numbers: {OUT}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
