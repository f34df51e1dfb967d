"""What the capture tests share: twins of prompts, a text encoder that counts, a judge, and a capture of a tiny Wan."""

from __future__ import annotations

import importlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safety_steering_pack.safety_steering.activations import Activations
from safety_steering_pack.safety_steering.judges.verdict import Verdict
from safety_steering_pack.safety_steering.prompts.prompt_set import PromptRow, PromptSet

SCENES = ("forest", "street", "kitchen", "beach", "garden", "market", "bridge", "station")
PROMPTS = PromptSet(
    tuple(
        PromptRow(
            f"{split}{i}",
            ("violence", "drugs")[i % 2],
            unsafe=f"a man with a {('weapon', 'syringe')[i % 2]} in the {scene}",
            safe=f"a man with a flower in the {scene}",
            split=split,
        )
        for split, scenes in (("train", SCENES[:4]), ("validation", SCENES[4:]))
        for i, scene in enumerate(scenes)
    )
)
FEW = PromptSet(PROMPTS.rows[:2])
LATENT = (1, 16, 2, 4, 4)
SETTINGS: dict[str, Any] = {
    "steps": 2,
    "cfg": 3.0,
    "sampler_name": "euler",
    "scheduler": "simple",
    "seed": 7,
    "negative": "",
}


class Clip:
    """The development text encoder as a CLIP; counts what it encodes."""

    def __init__(self, extras: Callable[[], dict[str, Any]] = dict) -> None:
        self.texts: list[str] = []
        self._extras = extras

    def tokenize(self, text: str) -> str:
        return text

    def encode_from_tokens_scheduled(self, tokens: str) -> list[list[Any]]:
        self.texts.append(tokens)
        generator = torch.Generator()
        states = [torch.randn(4096, generator=generator.manual_seed(sum(map(ord, word)))) for word in tokens.split()]
        padded = torch.zeros(1, 12, 4096)
        padded[0, : len(states)] = torch.stack(states) if states else 0
        return [[padded, {"pooled_output": None, **self._extras()}]]


class Darkness:
    """A judge that calls dark videos unsafe, and remembers what it saw."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.seen: list[tuple[tuple[int, ...], str, bool]] = []
        self.brightness: list[float] = []

    @property
    def name(self) -> str:
        return f"darkness below {self.threshold}"

    def __call__(self, video: np.ndarray, prompt: str = "", skip_start: bool = False) -> Verdict:
        self.seen.append((video.shape, prompt, skip_start))
        brightness = float(video.mean()) / 255
        self.brightness.append(brightness)
        return Verdict({"dark": 1 - brightness}, brightness < self.threshold)


def capture(
    folder: Path,
    model: Any,
    *,
    clip: Any = None,
    prompts: PromptSet = PROMPTS,
    hook_points: str = "all",
    bins: int = 2,
    latent: dict[str, Any] | None = None,
    choices: dict[str, Any] | None = None,
    **changes: Any,
) -> Activations:
    """Capture prompts into a folder. `choices`: of `capture_prompts`; other keyword arguments change the sampling."""
    run = importlib.import_module("safety_steering_pack.bridge.capture.run")
    sampling = run.Sampling(latent or {"samples": torch.zeros(LATENT)}, **{**SETTINGS, **changes})
    return run.capture_prompts(model, clip or Clip(), prompts, sampling, hook_points, bins, folder, **(choices or {}))


def shards(folder: Path | str) -> dict[str, bytes]:
    """The bytes of every shard of a folder."""
    return {path.name: path.read_bytes() for path in Path(folder).glob("shard-*")}


def interrupted_at(model: Any, call: int, act: Callable[[], None]) -> Any:
    """A clone of a model that does something before its model call of this number, counted from 1."""
    import comfy.patcher_extension

    calls: list[None] = []

    def watch(executor: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        if len(calls) == call:
            act()
        return executor(*args, **kwargs)

    watched = model.clone()
    watched.add_wrapper(comfy.patcher_extension.WrappersMP.APPLY_MODEL, watch)
    return watched


def killed(work: Callable[[], Any]) -> None:
    """Run something in a child process that kills itself by SIGKILL; fails if it ends in any other way."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(1)
    deadline = time.monotonic() + 240
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < deadline:
        time.sleep(0.1)
    if ended[0] == 0:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert ended[0] == child
    assert os.WIFSIGNALED(ended[1])
    assert os.WTERMSIG(ended[1]) == signal.SIGKILL


def die() -> None:
    """Ends this process without a word."""
    os.kill(os.getpid(), signal.SIGKILL)
