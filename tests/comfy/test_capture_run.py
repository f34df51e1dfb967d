"""Capture Activations and Fit Safety Direction on the tiny Wan, in the real ComfyUI."""

from __future__ import annotations

import importlib
import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from safety_steering_pack.safety_steering.activations import Activations
from safety_steering_pack.safety_steering.errors import SafetySteeringError
from safety_steering_pack.safety_steering.prompts import PromptRow, PromptSet
from tiny_models import TINY_MODELS

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


class Clip:
    """The development text encoder as a CLIP; counts what it encodes."""

    def __init__(self) -> None:
        self.texts = []

    def tokenize(self, text):
        return text

    def encode_from_tokens_scheduled(self, tokens):
        self.texts.append(tokens)
        generator = torch.Generator()
        states = [torch.randn(4096, generator=generator.manual_seed(sum(map(ord, word)))) for word in tokens.split()]
        padded = torch.zeros(1, 12, 4096)
        padded[0, : len(states)] = torch.stack(states) if states else 0
        return [[padded, {"pooled_output": None}]]


@pytest.fixture(scope="module")
def wan(comfy_in_process):
    return comfy_in_process.diffusion_model(TINY_MODELS["wan21_t2v"].file_name)


@pytest.fixture(scope="module")
def run(comfy_in_process):
    module = importlib.import_module("safety_steering_pack.bridge.capture_run")
    module.SHARD = 4
    return module


@pytest.fixture(scope="module")
def capture(run, wan):
    """A function that captures PROMPTS into a folder; keyword arguments change the settings."""

    def capture(folder, model=wan, clip=None, prompts=PROMPTS, hook_points="all", bins=2, **changes):
        settings = {"steps": 2, "cfg": 3.0, "sampler_name": "euler", "scheduler": "simple", "seed": 7, "negative": ""}
        sampling = run.Sampling({"samples": torch.zeros(1, 16, 2, 4, 4)}, **{**settings, **changes})
        return run.capture_prompts(model, clip or Clip(), prompts, sampling, hook_points, bins, folder)

    return capture


@pytest.fixture(scope="module")
def whole(capture, tmp_path_factory):
    """A capture that nothing disturbed."""
    return capture(tmp_path_factory.mktemp("captures") / "whole")


def shards(folder):
    return {path.name: path.read_bytes() for path in Path(folder).glob("shard-*")}


def test_every_prompt_is_a_row_at_every_hook_point(whole):
    rows = whole.rows()
    assert len(rows) == 16
    assert {row.pair for row in rows} == {row.id for row in PROMPTS.rows}
    assert {(row.label, row.category, row.split, row.length) for row in rows} >= {("unsafe", "drugs", "train", 8)}
    assert list(whole.source.hook_points) == ["conditioning", *(f"block.blocks.{i}.image" for i in range(4))]
    for name in whole.source.hook_points:
        states = whole.read(name).pooled
        assert bool(states.isfinite().all())
        assert len(states.unique(dim=0)) == len(rows)  # every prompt left its own trace


def test_a_killed_capture_goes_on_to_the_same_bits(capture, whole, wan, tmp_path):
    import comfy.patcher_extension

    child = os.fork()
    if child == 0:  # dies without a word in the middle of a prompt's sampling
        calls = []

        def die(executor, *args, **kwargs):
            calls.append(None)
            if len(calls) == 2 * 9 + 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return executor(*args, **kwargs)

        doomed = wan.clone()
        doomed.add_wrapper(comfy.patcher_extension.WrappersMP.APPLY_MODEL, die)
        try:
            capture(tmp_path / "killed", model=doomed)
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
    assert len(Activations.open(tmp_path / "killed").rows()) == 8
    clip = Clip()
    capture(tmp_path / "killed", clip=clip)
    assert len(clip.texts) == 1 + 8  # the negative prompt, and only what was missing
    assert shards(tmp_path / "killed") == shards(whole.folder)


def test_an_interrupt_ends_the_capture_and_leaves_whole_shards(capture, whole, wan, tmp_path):
    import comfy.model_management
    import comfy.patcher_extension

    calls = []

    def interrupt(executor, *args, **kwargs):
        calls.append(None)
        if len(calls) == 2 * 5:
            comfy.model_management.interrupt_current_processing()
        return executor(*args, **kwargs)

    stopped = wan.clone()
    stopped.add_wrapper(comfy.patcher_extension.WrappersMP.APPLY_MODEL, interrupt)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        capture(tmp_path / "stopped", model=stopped)
    comfy.model_management.interrupt_current_processing(False)
    first = dict(sorted(shards(whole.folder).items())[:1])
    assert shards(tmp_path / "stopped") == first


def test_other_settings_do_not_go_on_in_the_same_folder(capture, whole):
    before = shards(whole.folder)
    for changes in ({"seed": 8}, {"steps": 3, "bins": 2}, {"hook_points": "0.5"}):
        with pytest.raises(SafetySteeringError, match="other settings"):
            capture(whole.folder, **changes)
    assert shards(whole.folder) == before


def test_hook_points_are_names_depths_and_ranges(run, wan):
    shape = run.read_shape(wan.model.diffusion_model)
    blocks = [f"block.blocks.{i}.image" for i in range(4)]
    assert run.choose_hook_points("0.3-0.7", shape) == tuple(blocks[1:3])
    assert run.choose_hook_points("1.0, conditioning", shape) == ("conditioning", blocks[3])
    assert run.choose_hook_points("all", shape) == ("conditioning", *blocks)
    for wrong in ("0.7-0.3", "a-b", "0.4-0.5"):
        with pytest.raises(SafetySteeringError, match="range of depths"):
            run.choose_hook_points(wrong, shape)


def test_bins_share_the_steps(run, wan):
    sampling = run.Sampling({}, "", 8, 1.0, "euler", "simple", 0)
    edges = run.sigma_edges(wan, sampling, 4)
    sampler = run.comfy.samplers.KSampler(wan, 8, wan.load_device, "euler", "simple", 1.0)
    counts = torch.histogram(sampler.sigmas[:-1].double().cpu(), torch.tensor(edges, dtype=torch.float64)).hist
    assert counts.tolist() == [2, 2, 2, 2]
    with pytest.raises(SafetySteeringError, match="9 sigma bins cannot share 8 steps"):
        run.sigma_edges(wan, sampling, 9)


def test_a_template_gives_its_extras_and_not_its_text(run):
    template = [[torch.ones(1, 3, 4096), {"pooled_output": torch.ones(1, 2), "frame_rate": 25.0}]]
    ((states, about),) = run._encode(Clip(), "a fox", template)
    assert about == {"pooled_output": None, "frame_rate": 25.0}
    assert bool((states[0, 2:] == 0).all())


def test_fit_safety_direction_makes_a_vector_that_fits_the_model(whole, wan, comfy_in_process):
    fit = importlib.import_module("safety_steering_pack.nodes.fit_safety_direction").FitSafetyDirection
    check = importlib.import_module("safety_steering_pack.bridge.fit_check")
    for method in (
        {"method": "mean_difference"},
        {"method": "supervised_pca", "labels": "binary", "kernel": "linear", "components": 1},
        {"method": "shrunk_lda", "shrinkage": 1.0},
    ):
        vector, picture, table = fit.PREPARE_CLASS_CLONE({}).execute(whole, False, False, 0, "", 3, method=method).args
        shape = check_shape(wan)
        check.check_fits(vector, tuple(vector.hook_points), shape)
        assert vector.categories == ("violence", "drugs", "all")
        assert vector.info.method == method["method"]
        assert picture.ndim == 4
        assert float(picture.std()) > 0
        rows = json.loads(table)
        assert len(rows) == 5 * 3 * 2
        assert {row["n_unsafe"] for row in rows if row["category"] == "all"} == {4}
        texts = [row for row in rows if row["hook_point"] == "conditioning" and row["category"] == "all"]
        assert all(row["auc"] == 1.0 for row in texts)  # one word is the whole difference


def check_shape(wan):
    return importlib.import_module("safety_steering_pack.bridge.model_map").read_shape(wan.model.diffusion_model)


def test_a_folder_name_stays_inside_the_output_directory(comfy_in_process):
    folders = importlib.import_module("safety_steering_pack.bridge.activation_folders")
    assert folders.activations_path("mine").name == "mine"
    for wrong in ("", "..", "../other", "/tmp/x", "a\nb"):
        with pytest.raises(SafetySteeringError, match="Give a plain name"):
            folders.activations_path(wrong)
