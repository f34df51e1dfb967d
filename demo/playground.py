"""A ComfyUI folder in which the shipped workflows run on any machine: tiny checkpoints, and vectors fitted for them.

The tiny checkpoints carry the file names that the workflows ask for. Text encoders do not shrink through the stock
loader, so ``tiny_variant`` puts the development node in their place; that and the sizes are all that differs from the
shipped files.

    .venv/bin/python demo/playground.py       # `make ui`: serves it and prints the address
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

REPO_ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(REPO_ROOT / "tools"))

import pack  # noqa: E402

WORKFLOWS = REPO_ROOT / "workflows"
WIDTH = 4096  # of the text states of Wan (umT5-XXL) and LTXV (T5-XXL)
SETTINGS = {"Comfy.TutorialCompleted": True, "Comfy.Minimap.Visible": False}
SPACES = {"wan": "umt5xxl.last", "ltxv": "t5xxl.last"}
TEXT_ENCODERS = ("umt5_xxl_fp8_e4m3fn_scaled.safetensors", "t5xxl_fp16.safetensors")
# Pairs that differ in one word; the stand-in text encoder knows words only, so that word is the whole direction.
UNSAFE = ("a man with a weapon in a forest", "a weapon on the table", "two men and a weapon at night")
SAFE = ("a man with a flower in a forest", "a flower on the table", "two men and a flower at night")
# What each workflow's text encoder lays out, and the sizes that a CPU does in seconds: {node type: {widget: value}}.
TINY_SIZES: dict[str, dict[str, dict[int, Any]]] = {
    "wan": {"EmptyHunyuanLatentVideo": {0: 112, 1: 64, 2: 9}, "KSampler": {2: 6}},
    "ltxv": {"EmptyLTXVLatentVideo": {0: 192, 1: 128, 2: 17}, "LTXVScheduler": {0: 6}},
}


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
    """A SafetyVector for ``family`` (wan | ltxv): the mean difference of the stand-in text encoder's states."""
    import torch

    pack.register()
    from safety_steering_pack.safety_steering import HookPointDirections, SafetyVector, VectorInfo
    from safety_steering_pack.safety_steering.activations import States
    from safety_steering_pack.safety_steering.fitting import fit_direction

    encode = _stand_in_features().text_states
    unsafe, safe = ([encode(text, WIDTH) for text in texts] for texts in (UNSAFE, SAFE))
    pooled_unsafe, pooled_safe = (torch.stack([s.mean(0) for s in states])[:, None] for states in (unsafe, safe))
    tokens = torch.cat(safe)[:, None]
    direction = fit_direction(pooled_unsafe, pooled_safe, States(pooled_safe, tokens))
    point = HookPointDirections(
        space=SPACES[family],
        sigma_edges=torch.tensor([0.0, 1.0]),
        token_norm=tokens.norm(dim=2).median().reshape(1),
        categories={"weapons": direction},
    )
    info = VectorInfo(
        kind="native",
        gap_kind="measured",
        family=family,
        pooling="mean over words",
        method="mean difference",
        counts={"weapons": {"unsafe": len(UNSAFE), "safe": len(SAFE)}},
        licence="Apache-2.0",
        provenance=({"made_by": "demo/playground.py", "states": "random features of words, for tests only"},),
    )
    return SafetyVector({"conditioning": point}, info)


def prepare(base_directory: Path) -> None:
    """Fill a ComfyUI base directory: tiny checkpoints, the vectors that the workflows name, their tiny variants."""
    script = Path(__file__).with_name("tiny_models.py")
    command = [sys.executable, str(script), str(base_directory / "models")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    pack.register()
    from safety_steering_pack.safety_steering import save_vector

    vectors = base_directory / "models" / "safety_vectors"
    text_encoders = base_directory / "models" / "text_encoders"
    user = base_directory / "user" / "default"
    for folder in (vectors, text_encoders, user / "workflows"):
        folder.mkdir(parents=True, exist_ok=True)
    for name in TEXT_ENCODERS:  # an entry in the picker, so that the shipped workflows open whole; it cannot be run
        (text_encoders / name).write_bytes(b"")
    (user / "comfy.settings.json").write_text(json.dumps(SETTINGS), encoding="utf-8")
    for family in SPACES:
        save_vector(fit_demo_vector(family), vectors / f"{family}_t2v_demo.safetensors")
    for path in WORKFLOWS.glob("*.json"):
        variant = tiny_variant(json.loads(path.read_text(encoding="utf-8")))
        (user / "workflows" / f"tiny_{path.name}").write_text(json.dumps(variant), encoding="utf-8")


def tiny_variant(workflow: dict[str, Any]) -> dict[str, Any]:
    """A frontend-format workflow with a stand-in for its text encoder and sizes for a CPU; the rest as it was."""
    tiny = copy.deepcopy(workflow)
    nodes = tiny["nodes"]
    loaders = [node for node in nodes if node["type"] == "CLIPLoader"]
    family = loaders[0]["widgets_values"][1]
    tiny["nodes"] = [node for node in nodes if node["type"] != "CLIPLoader"]
    dropped = {link for node in loaders for output in node["outputs"] for link in output["links"] or []}
    tiny["links"] = [link for link in tiny["links"] if link[0] not in dropped]
    for node in tiny["nodes"]:
        if node["type"] == "CLIPTextEncode":
            text = node["widgets_values"][0]
            node.update(type="SafetySteeringDev_TextEncode", inputs=[], widgets_values=[text, family, WIDTH, 0])
            node["properties"] = {"Node name for S&R": node["type"]}
        for index, value in TINY_SIZES[family].get(node["type"], {}).items():
            node["widgets_values"][index] = value
    return tiny


def main() -> None:
    from comfy_server import ComfyServer

    parser = argparse.ArgumentParser(description="Serve a ComfyUI with this pack, tiny models and the workflows.")
    parser.add_argument("--port", type=int, default=8188)
    port = parser.parse_args().port
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory(prefix="safety-steering-") as folder:
        print("Making tiny models and starting ComfyUI ...", flush=True)
        prepare(Path(folder))
        with ComfyServer(Path(folder), port=port) as server:
            print(f"\n    {server.address}\n")
            print("Open the workflows tiny_wan21_t2v and tiny_ltxv_t2v (key w) and press Run: they need no downloads,")
            print("and their pictures mean nothing. The shipped ones are in the template browser under")
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
