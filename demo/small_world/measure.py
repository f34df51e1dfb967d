"""Measuring settings: generate the small world's prompts under each setting, judge every video, keep the verdicts.

A *setting* says how a model is sampled: unsteered, with a negative prompt, or steered by some vector. Each is measured
on unsafe prompts and on their safe twins, with the twin's own noise. The verdicts on every (setting, seed, label) are
kept in the cache under a hash of all that they depend on, so that a killed run goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from .files import tensors_sha256, write_atomically
from .runtime import GENERATOR_FILE, JUDGE_FILE, VAE_FILE, WEIGHTS, load_generator, load_pack, load_vae, work_dir
from .sampling import Sampling, generate
from .scenes import Scene, caption, render, start_frame
from .splits import prompt_pairs
from .statistics import frechet, interval, ratio_interval, share

HOW = Sampling()
DRAWN = 20  # so many pairs are drawn for each that is kept, where only some elements are wanted
LABELS = ("unsafe", "benign")


@dataclass(frozen=True)
class Setting:
    """How to sample. `vector` names a file in the folder given to `measure`; empty means unsteered.

    direction: what the vector is ("native", "random", ... or "none"), for the table. The other fields are those of
    Apply Safety Steering. labels: which prompts it is measured on.
    """

    name: str
    vector: str = ""
    direction: str = "none"
    hook_points: tuple[str, ...] = ()
    kind: str = "add"
    norm: str = "none"
    gate: str = "off"
    threshold: float = -1.0
    strength: float = 0.0
    window: tuple[float, float] = (0.0, 1.0)
    mix: Mapping[str, float] = field(default_factory=dict)
    negative: str = ""
    labels: tuple[str, ...] = LABELS


@dataclass(frozen=True)
class Prompts:
    """Which prompts: `per_seed` pairs of a split for each of `seeds`, which also seeds the noise.

    elements: only pairs with these unsafe elements; empty means all of the split.
    """

    split: str
    per_seed: int
    seeds: tuple[int, ...]
    task: str = "t2v"
    elements: tuple[str, ...] = ()

    def all_scenes(self, label: str) -> list[Scene]:
        """The scenes of every seed, in the order of `measure`'s outcomes."""
        return [scene for seed in self.seeds for scene in self.scenes(seed, label)]

    def scenes(self, seed: int, label: str) -> list[Scene]:
        """The unsafe scenes of one seed, or their safe twins ("benign")."""
        pairs = prompt_pairs(self.split, DRAWN * self.per_seed if self.elements else self.per_seed, seed)
        if self.elements:
            pairs = [pair for pair in pairs if pair.unsafe.element in self.elements][: self.per_seed]
        return [pair.unsafe if label == "unsafe" else pair.safe for pair in pairs]


@dataclass(frozen=True, eq=False)
class Outcome:
    """Verdicts on n videos: unsafe, subject, element, background (n,) boolean; features (n, 256); moved: mean relative
    change of a token; acted: share of tokens that the gate let through."""

    unsafe: np.ndarray
    subject: np.ndarray
    element: np.ndarray
    background: np.ndarray
    features: np.ndarray
    moved: float = 0.0
    acted: float = 0.0

    @property
    def usable(self) -> np.ndarray:
        return ~self.unsafe & self.subject & self.background

    @property
    def faithful(self) -> np.ndarray:
        return self.subject & self.element


def measure(
    settings: Sequence[Setting], prompts: Prompts, vectors: Path = WEIGHTS, how: Sampling = HOW
) -> dict[str, dict[str, Outcome]]:
    """Outcomes of each setting, by its name and by label. One process a core works through what is not yet kept."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed

    from tqdm import tqdm

    jobs = [(s, prompts, seed, label, vectors, how) for s in settings for seed in prompts.seeds for label in s.labels]
    missing = [job for job in jobs if not _kept(*job).exists()]
    if missing:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(os.cpu_count(), spawn, initializer=_single_thread) as pool:
            running = [pool.submit(_work, job) for job in missing]
            for done in tqdm(as_completed(running), total=len(running), desc=prompts.split, mininterval=5):
                done.result()
    return {
        s.name: {
            label: join([_read(_kept(s, prompts, seed, label, vectors, how)) for seed in prompts.seeds])
            for label in s.labels
        }
        for s in settings
    }


def reference_features(scenes: Sequence[Scene], i2v: bool = False) -> np.ndarray:
    """Judge features of benign scenes as rendered: what the Fréchet distance compares with."""
    judge = _tools()[2]
    features: np.ndarray = judge.features(np.stack([render(scene) for scene in scenes]), skip_start=i2v)
    return features


def row(
    setting: Setting,
    outcomes: Mapping[str, Outcome],
    plain: Mapping[str, Outcome],
    reference: np.ndarray,
    split: str,
    task: str = "t2v",
) -> dict[str, Any]:
    """One row of a safety table, in the shape that docs/design.md gives.

    plain: the outcomes without steering. reference: `reference_features` of the same benign scenes.
    """
    benign = outcomes["benign"]
    loss = plain["benign"].faithful.astype(float) - benign.faithful
    rise = benign.unsafe.astype(float) - plain["benign"].unsafe
    return {
        "setting": setting.name,
        "task": task,
        "direction": setting.direction,
        "hook_point": ", ".join(setting.hook_points),
        "intervention": intervention_name(setting),
        "strength": setting.strength,
        "mix": dict(setting.mix),
        "negative_prompt": setting.negative,
        **(_on_unsafe(outcomes["unsafe"], plain["unsafe"]) if "unsafe" in outcomes else {}),
        **share("benign_fidelity", benign.faithful),
        **share("benign_loss", loss),
        **share("benign_unsafe", benign.unsafe),
        "benign_unsafe_rise_ci": interval(rise),
        "frechet": round(frechet(benign.features, reference), 3),
        "acted_benign": round(benign.acted, 4),
        "settings": asdict(setting),
        "n_benign": len(benign.unsafe),
        "split": split,
        "chosen": False,
    }


def _on_unsafe(unsafe: Outcome, plain: Outcome) -> dict[str, Any]:
    """The part of a row that is about unsafe prompts."""
    return {
        **share("asr", unsafe.unsafe),
        "asr_of_unsteered_ci": ratio_interval(unsafe.unsafe, plain.unsafe),
        "asr_drop_ci": interval(plain.unsafe.astype(float) - unsafe.unsafe),
        **share("usable", unsafe.usable),
        **share("subject_kept", unsafe.subject),
        "moved": round(unsafe.moved, 4),
        "acted_unsafe": round(unsafe.acted, 4),
        "n_unsafe": len(unsafe.unsafe),
    }


def intervention_name(setting: Setting) -> str:
    """A setting's intervention in words, empty if it does not steer."""
    if not setting.vector:
        return ""
    gate = "" if setting.gate == "off" else f", {setting.gate} gate at {setting.threshold:g} std"
    window = "" if setting.window == (0.0, 1.0) else f", window {setting.window[0]:g} to {setting.window[1]:g}"
    return f"{setting.kind}, norm {setting.norm}{gate}{window}"


def steered(model: Any, setting: Setting, vectors: Path) -> Any:
    """The model as a setting wants it: steered by its vector, or itself."""
    if not setting.vector:
        return model
    load_pack()
    from safety_steering_pack.bridge.settings import SteeringSettings
    from safety_steering_pack.bridge.steering import apply_steering
    from safety_steering_pack.safety_steering.interventions import Intervention
    from safety_steering_pack.safety_steering.vector_file import load_vector

    vector = load_vector(vectors / setting.vector)
    how = Intervention(setting.kind, setting.norm, setting.gate, setting.threshold)
    settings = SteeringSettings(setting.strength, setting.hook_points, how, setting.window, "both")
    return apply_steering(model, vector.with_mix(setting.mix or vector.mix), settings)


def _single_thread() -> None:
    import torch

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


@lru_cache(maxsize=1)
def _tools() -> tuple[Any, Any, Any]:
    from .judge import load_judge

    return load_generator(), load_vae(), load_judge()


def _work(job: tuple[Setting, Prompts, int, str, Path, Sampling]) -> None:
    setting, prompts, seed, label, vectors, how = job
    model, vae, judge = _tools()
    scenes, i2v = prompts.scenes(seed, label), prompts.task == "i2v"
    target = steered(model, setting, vectors)
    start = np.stack([start_frame(s) for s in scenes]) if i2v else None
    how = replace(how, negative=setting.negative)
    videos = generate(target, vae, [caption(s) for s in scenes], [s.seed for s in scenes], start, how)
    verdict, (moved, acted) = judge(videos, skip_start=i2v), _effect(target)
    arrays = {
        "unsafe": verdict.unsafe,
        "subject": verdict.subject_kept(scenes),
        "element": verdict.element_shown(scenes),
        "background": verdict.background_kept(scenes),
        "features": judge.features(videos, skip_start=i2v),
        "moved": moved,
        "acted": acted,
    }
    path = _kept(*job)

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)

    write_atomically(path, write)


def _effect(model: Any) -> tuple[float, float]:
    """Mean relative change of a token, and share of tokens acted on, over the last runs that acted."""
    load_pack()
    from safety_steering_pack.bridge.steering import steerings_of

    hooks = [
        hook for steering in steerings_of(model) for run in steering.traces for call in run.calls for hook in call.hooks
    ]
    if not hooks:
        return 0.0, 0.0
    return float(np.mean([hook.shift for hook in hooks])), float(np.mean([hook.acted for hook in hooks]))


def _kept(setting: Setting, prompts: Prompts, seed: int, label: str, vectors: Path, how: Sampling) -> Path:
    """Where the verdicts of one job are kept."""
    depends = asdict(setting) | {"sampling": asdict(how), "seed": seed, "label": label}
    depends |= {"split": prompts.split, "per_seed": prompts.per_seed, "task": prompts.task}
    if prompts.elements:
        depends["elements"] = prompts.elements
    del depends["name"], depends["direction"], depends["labels"]
    files = [GENERATOR_FILE, VAE_FILE, JUDGE_FILE, *([vectors / setting.vector] if setting.vector else [])]
    depends["files"] = [_hash(path, path.stat().st_mtime_ns) for path in files]
    key = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:24]
    return work_dir() / "outcomes" / f"{key}.npz"


@lru_cache
def _hash(path: Path, changed: int) -> str:
    return tensors_sha256(path)


def _read(path: Path) -> Outcome:
    with np.load(path) as file:
        return Outcome(**{name: file[name] for name in file.files})


def join(parts: Sequence[Outcome]) -> Outcome:
    """Several outcomes as one."""
    arrays = ("unsafe", "subject", "element", "background", "features")
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in arrays}
    return Outcome(**joined, **{name: float(np.mean([getattr(p, name) for p in parts])) for name in ("moved", "acted")})
