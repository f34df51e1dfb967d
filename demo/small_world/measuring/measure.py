"""Measure settings: generate the small world's prompts under each setting, judge every video, keep the verdicts.

A *setting* is a way to sample: unsteered, with a negative prompt, steered by a vector, or under a baseline. Each is
measured on unsafe prompts and on their safe twins, with the same noise. Verdicts are kept in the cache, up to `CHUNK`
prompts of one seed and label in a file, under a hash of all that they depend on: a stopped run is resumed, and a longer
measurement reuses the verdicts of a shorter one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..files import tensors_sha256, write_atomically
from ..runtime import GENERATOR_FILE, JUDGE_FILE, VAE_FILE, WEIGHTS, load_generator, load_vae, work_dir
from ..scenes.render import Scene, render
from .sampling import Sampling, generate
from .settings import Prompts, WorldSetting, captions, start_frames
from .steered import acts_on, effect, encoder, steered

HOW = Sampling()
CHUNK = 100
VERDICTS = ("unsafe", "subject", "element", "background", "features")
PLAIN = WorldSetting("unsteered")
LATER = ("false_alarm", "token_threshold", "gated_by")


@dataclass(frozen=True)
class Job:
    """The videos of prompts `first` to `last` of one seed and label under one setting."""

    setting: WorldSetting
    prompts: Prompts
    seed: int
    label: str
    first: int
    last: int
    vectors: Path
    how: Sampling

    def scenes(self) -> list[Scene]:
        return self.prompts.scenes(self.seed, self.label)[self.first : self.last]

    def path(self) -> Path:
        """Where the verdicts are kept."""
        depends = _facts(self.setting) | {"sampling": asdict(self.how), "seed": self.seed, "label": self.label}
        depends |= {"rows": (self.first, self.last), "split": self.prompts.split, "task": self.prompts.task}
        depends |= {"elements": self.prompts.elements, "categories": self.prompts.categories}
        del depends["name"], depends["direction"], depends["labels"]
        vectors = [self.vectors / name for name in (self.setting.vector, self.setting.gated_by) if name]
        files = [GENERATOR_FILE, VAE_FILE, JUDGE_FILE, *vectors]
        depends["files"] = [_hash(path, path.stat().st_mtime_ns) for path in files]
        key = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:24]
        return work_dir() / "outcomes" / f"{key}.npz"


def _facts(setting: WorldSetting) -> dict[str, Any]:
    """The setting as plain data. Fields that were added later are left out at their default, so that verdicts last."""
    facts = asdict(setting)
    return {name: value for name, value in facts.items() if name not in LATER or value != getattr(PLAIN, name)}


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
    settings: Sequence[WorldSetting], prompts: Prompts, vectors: Path = WEIGHTS, how: Sampling = HOW, processes: int = 0
) -> dict[str, dict[str, Outcome]]:
    """Outcomes of each setting, by its name and by label. Verdicts that are not in the cache are made.

    processes: how many work at once; 0 for one a core, 1 for the present process.
    """
    jobs = {
        (setting.name, label): [
            job for seed in prompts.seeds for job in _jobs(setting, prompts, seed, label, vectors, how)
        ]
        for setting in settings
        for label in setting.labels
    }
    _work_through([job for some in jobs.values() for job in some], prompts.split, processes or os.cpu_count() or 1)
    return {s.name: {label: join([_read(job) for job in jobs[s.name, label]]) for label in s.labels} for s in settings}


def _jobs(setting: WorldSetting, prompts: Prompts, seed: int, label: str, vectors: Path, how: Sampling) -> list[Job]:
    firsts = range(0, prompts.per_seed, CHUNK)
    return [
        Job(setting, prompts, seed, label, first, min(first + CHUNK, prompts.per_seed), vectors, how)
        for first in firsts
    ]


def _work_through(jobs: Sequence[Job], title: str, processes: int) -> None:
    """Do the jobs whose verdicts are not kept."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed

    from tqdm import tqdm

    missing = list({path: job for job in jobs if not (path := job.path()).exists()}.values())
    if processes == 1:
        _single_thread()
        for job in tqdm(missing, desc=title, mininterval=5, disable=not missing):
            _work(job)
    elif missing:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, spawn, initializer=_single_thread) as pool:
            running = [pool.submit(_work, job) for job in missing]
            for done in tqdm(as_completed(running), total=len(running), desc=title, mininterval=5):
                done.result()


def reference_features(scenes: Sequence[Scene], i2v: bool = False) -> np.ndarray:
    """Judge features (n, 256) of rendered benign scenes, the reference of the Fréchet distance."""
    judge = _tools()[2]
    features: np.ndarray = judge.features(np.stack([render(scene) for scene in scenes]), skip_start=i2v)
    return features


def _single_thread() -> None:
    import torch

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


@lru_cache(maxsize=1)
def _tools() -> tuple[Any, Any, Any]:
    from ..models.judge import load_judge

    return load_generator(), load_vae(), load_judge()


def _work(job: Job) -> None:
    """Generate and judge a job's videos and keep the verdicts.

    A prompt that the setting leaves alone has the unsteered video, so it takes the unsteered verdict.
    """
    scenes = job.scenes()
    changed = acts_on(job.setting, job.vectors, captions(scenes, job.prompts.task))
    if changed.all():
        arrays = _verdicts(job, scenes)
    else:
        plain = replace(job, setting=PLAIN)
        if not plain.path().exists():
            _work(plain)
        arrays = _arrays(plain)
        if changed.any():
            made = _verdicts(job, [scene for scene, new in zip(scenes, changed, strict=True) if new])
            for name in VERDICTS:
                arrays[name][changed] = made[name]
            arrays |= {name: made[name] * changed.mean() for name in ("moved", "acted")}

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)

    write_atomically(job.path(), write)


def _verdicts(job: Job, scenes: Sequence[Scene]) -> dict[str, Any]:
    """Generate and judge; arrays as `Outcome` has them."""
    model, vae, judge = _tools()
    target, task = steered(model, job.setting, job.vectors), job.prompts.task
    how = replace(job.how, negative=job.setting.negative)
    seeds = [scene.seed for scene in scenes]
    encode = encoder(job.setting, job.vectors)
    videos = generate(target, vae, captions(scenes, task), seeds, start_frames(scenes, task), how, encode)
    verdict, (moved, acted) = judge(videos, skip_start=task != "t2v"), effect(target)
    return {
        "unsafe": verdict.unsafe,
        "subject": verdict.subject_kept(scenes),
        "element": verdict.element_shown(scenes),
        "background": verdict.background_kept(scenes),
        "features": judge.features(videos, skip_start=task != "t2v"),
        "moved": moved,
        "acted": acted,
    }


@lru_cache
def _hash(path: Path, changed: int) -> str:
    return tensors_sha256(path)


def _arrays(job: Job) -> dict[str, Any]:
    with np.load(job.path()) as file:
        return {name: file[name] for name in file.files}


def _read(job: Job) -> Outcome:
    return Outcome(**_arrays(job))


def join(parts: Sequence[Outcome]) -> Outcome:
    """Several outcomes as one."""
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in VERDICTS}
    return Outcome(**joined, **{name: float(np.mean([getattr(p, name) for p in parts])) for name in ("moved", "acted")})
