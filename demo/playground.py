"""A ComfyUI folder in which the shipped workflows run on any machine: tiny checkpoints, and vectors fitted for them.

The tiny checkpoints carry the file names that the workflows ask for. Encoders do not shrink through the stock loaders,
so ``tiny_variant`` replaces them by stand-ins. Apart from that and the sizes the files are the shipped ones.

    .venv/bin/python tools/start.py playground       # `make ui`: serves it and prints the address
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

REPO_ROOT = Path(__file__).resolve().parents[1]

import start
from comfy_tree import comfyui_path
from tiny.workflows import WIDTH, tiny_variant
from workflow_builder.recipes import RECIPES

WORKFLOWS = REPO_ROOT / "workflows"
# without the last one a whole workflow on one screen would show no words
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Minimap.Visible": False,
    "LiteGraph.Canvas.MinFontSizeForLOD": 0,
}
SPACES = {"wan": "umt5xxl.last", "ltxv": "t5xxl.last"}
# entries in the pickers, so that the shipped workflows open whole; these files cannot be run
UNUSABLE = {
    "text_encoders": (
        "umt5_xxl_fp8_e4m3fn_scaled.safetensors",
        "t5xxl_fp16.safetensors",
        "clip_l.safetensors",
        "gemma_3_12B_it_fp4_mixed.safetensors",
    ),
    "clip_vision": ("clip_vision_h.safetensors",),
}
START_IMAGE = "example.png"  # ComfyUI brings it
# Pairs that differ in one word; the stand-in text encoder knows words only, so that word is the whole direction.
UNSAFE_TEXTS = ("a man with a weapon in a forest", "a weapon on the table", "two men and a weapon at night")
SAFE_TEXTS = ("a man with a flower in a forest", "a flower on the table", "two men and a flower at night")


def _stand_in_features() -> ModuleType:
    """The development text encoder's features; loaded by path, because that folder is a ComfyUI pack of its own."""
    path = REPO_ROOT / "demo" / "dev_nodes" / "features.py"
    spec = importlib.util.spec_from_file_location("stand_in_features", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fit_demo_vector(family: str) -> Any:
    """A native SafetyVector for ``family`` (wan | ltxv): the mean difference of the stand-in text encoder's states.

    Workflows of old name it.
    """
    import torch
    from safety_steering_pack.safety_steering.activations import SAFE, UNSAFE, Row, States
    from safety_steering_pack.safety_steering.directions.fitting import FitSettings, fit_states
    from safety_steering_pack.safety_steering.vectors.vector import SafetyVector, VectorInfo

    encode = _stand_in_features().text_states
    texts = {text: label for label, some in ((UNSAFE, UNSAFE_TEXTS), (SAFE, SAFE_TEXTS)) for text in some}
    rows = [Row(text, label, "weapons", split="train") for text, label in texts.items()]
    states = torch.stack([torch.stack([s.mean(dim=0), s[-2]]) for s in (encode(text, WIDTH) for text in texts)])
    pooled, last_word = states[:, :1], states[:, 1:]
    point, _ = fit_states(
        rows,
        States(pooled, last_word),
        ("weapons",),
        FitSettings(),
        space=SPACES[family],
        sigma_edges=(0.0, 1.0),
    )
    info = VectorInfo(
        kind="native",
        gap_kind="measured",
        family=family,
        pooling="mean over words",
        method="mean difference",
        counts={"weapons": {"unsafe": len(UNSAFE_TEXTS), "safe": len(SAFE_TEXTS)}},
        licence="Apache-2.0",
        provenance=({"made_by": "demo/playground.py", "states": "random features of words, for tests only"},),
    )
    return SafetyVector({"conditioning": point}, info)


def prepare(base_directory: Path) -> None:
    """Fill a ComfyUI base directory: tiny checkpoints, the workflows' tiny variants, and vectors for those of old."""
    subprocess.run(start.command("tiny.models", str(base_directory / "models")), check=True, stdout=subprocess.DEVNULL)
    from safety_steering_pack.safety_steering.vectors.file import save_vector

    vectors = base_directory / "models" / "safety_vectors"
    user = base_directory / "user" / "default"
    for folder in (vectors, user / "workflows", base_directory / "input"):
        folder.mkdir(parents=True, exist_ok=True)
    for kind, names in UNUSABLE.items():
        folder = base_directory / "models" / kind
        folder.mkdir(exist_ok=True)
        for name in names:
            (folder / name).write_bytes(b"")
    shutil.copyfile(comfyui_path() / "input" / START_IMAGE, base_directory / "input" / START_IMAGE)
    (user / "comfy.settings.json").write_text(json.dumps(SETTINGS), encoding="utf-8")
    for family in SPACES:
        save_vector(fit_demo_vector(family), vectors / f"{family}_t2v_demo.safetensors")
    for recipe in RECIPES:
        workflow = json.loads((WORKFLOWS / f"{recipe.name}.json").read_text(encoding="utf-8"))
        target = user / "workflows" / f"tiny_{recipe.name}.json"
        target.write_text(json.dumps(tiny_variant(workflow)), encoding="utf-8")


def add_small_world(base_directory: Path) -> None:
    """The small world's files, and the workflows that it can run, under names that begin with small_."""
    from small_world_workflows import small_comparison, small_evaluation, small_world_folder, small_world_variant
    from workflow_builder.native import PAGES

    small_world_folder(base_directory)
    variants = dict.fromkeys([*PAGES, "wan21_t2v"], small_world_variant)
    variants |= {"compare_t2v": small_comparison, "evaluate_vector": small_evaluation}
    for name, variant_of in variants.items():
        variant = variant_of(json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8")))
        target = base_directory / "user" / "default" / "workflows" / f"small_{name}.json"
        target.write_text(json.dumps(variant), encoding="utf-8")


def main() -> None:
    from comfy_server import ComfyServer, is_taken

    parser = argparse.ArgumentParser(description="Serve a ComfyUI with this pack, tiny models and the workflows.")
    parser.add_argument("--port", type=int, default=8188)
    port = parser.parse_args().port
    if is_taken(port):
        parser.error(f"another program has port {port}. Stop it, or choose another port with --port.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory(prefix="safety-steering-") as folder:
        print("Making tiny models and starting ComfyUI ...", flush=True)
        prepare(Path(folder))
        add_small_world(Path(folder))
        with ComfyServer(Path(folder), port=port) as server:
            print(f"\n    {server.address}\n")
            print("Open a workflow whose name begins with tiny_ or small_ (key w) and press Run: no downloads needed.")
            print("What tiny_ ones make means nothing; small_ ones run on the small world. The shipped ones are in the")
            print("template browser under")
            print(
                f"ComfyUI-Safety-Steering. Models, input and output: {server.base_directory}\nStop with Ctrl-C.",
                flush=True,
            )
            try:
                while True:
                    time.sleep(1)
                    server.check()
            except KeyboardInterrupt:
                print("\nStopped.")


if __name__ == "__main__":
    main()
