"""Capture Activations and Fit Safety Direction on the tiny Wan, in the real ComfyUI."""

from __future__ import annotations

import importlib
import json

import pytest
import torch
from captures import PROMPTS, SCENES, Clip, capture, die, interrupted_at, killed, shards
from safety_steering_pack.safety_steering.activations import Activations
from safety_steering_pack.safety_steering.errors import SafetySteeringError
from safety_steering_pack.safety_steering.prompts.prompt_set import PromptRow, PromptSet
from tiny.models import TINY_MODELS


@pytest.fixture(scope="module")
def wan(comfy_in_process):
    return comfy_in_process.diffusion_model(TINY_MODELS["wan21_t2v"].file_name)


@pytest.fixture(scope="module", autouse=True)
def run(comfy_in_process):
    module = importlib.import_module("safety_steering_pack.bridge.capture.run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.import_module("safety_steering_pack.bridge.sampling.sampling"), "SHARD", 4)
        yield module


@pytest.fixture(scope="module")
def whole(run, wan, tmp_path_factory):
    """A capture that nothing disturbed."""
    return capture(tmp_path_factory.mktemp("captures") / "whole", wan)


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


def test_a_killed_capture_goes_on_to_the_same_bits(whole, wan, tmp_path):
    folder = tmp_path / "killed"
    killed(lambda: capture(folder, interrupted_at(wan, 2 * 9 + 2, die)))  # in the middle of a prompt's sampling
    assert len(Activations.open(folder).rows()) == 8
    clip = Clip()
    capture(folder, wan, clip=clip)
    assert len(clip.texts) == 1 + 8  # the negative prompt, and only what was missing
    assert shards(folder) == shards(whole.folder)


def test_an_interrupt_ends_the_capture_and_leaves_whole_shards(whole, wan, tmp_path):
    import comfy.model_management as management

    stopped = interrupted_at(wan, 2 * 5, management.interrupt_current_processing)
    with pytest.raises(management.InterruptProcessingException):
        capture(tmp_path / "stopped", stopped)
    management.interrupt_current_processing(False)
    first = dict(sorted(shards(whole.folder).items())[:1])
    assert shards(tmp_path / "stopped") == first


def test_other_settings_do_not_go_on_in_the_same_folder(whole, wan):
    before = shards(whole.folder)
    changes = (
        {"seed": 8},
        {"steps": 3, "bins": 2},
        {"hook_points": "0.5"},
        {"cfg": 3.5},
        {"template": [[torch.zeros(1, 1, 4096), {"frame_rate": 25.0}]]},
        {"latent": {"samples": torch.ones(1, 16, 2, 4, 4)}},
        {"choices": {"branch": "both"}},
    )
    for change in changes:
        with pytest.raises(SafetySteeringError, match="other settings"):
            capture(whole.folder, wan, **change)
    assert shards(whole.folder) == before


def test_hook_points_are_names_depths_and_ranges(run, wan):
    shape = run.patcher_shape(wan)
    blocks = [f"block.blocks.{i}.image" for i in range(4)]
    assert run.choose_hook_points("0.3-0.7", shape) == tuple(blocks[1:3])
    assert run.choose_hook_points("1.0, conditioning", shape) == ("conditioning", blocks[3])
    assert run.choose_hook_points("all", shape) == ("conditioning", *blocks)
    for wrong in ("0.7-0.3", "a-b", "0.4-0.5"):
        with pytest.raises(SafetySteeringError, match="range of depths"):
            run.choose_hook_points(wrong, shape)


def test_bins_share_the_steps(run, wan):
    import comfy.samplers

    sampling = run.Sampling({}, "", 8, 1.0, "euler", "simple", 0)
    edges = run.sigma_edges(wan, sampling, 4)
    sampler = comfy.samplers.KSampler(wan, 8, wan.load_device, "euler", "simple", 1.0)
    counts = torch.histogram(sampler.sigmas[:-1].double().cpu(), torch.tensor(edges, dtype=torch.float64)).hist
    assert counts.tolist() == [2, 2, 2, 2]
    with pytest.raises(SafetySteeringError, match="9 sigma bins cannot share 8 steps"):
        run.sigma_edges(wan, sampling, 9)


def test_a_template_gives_its_extras_and_not_its_text(run):
    template = [[torch.ones(1, 3, 4096), {"pooled_output": torch.ones(1, 2), "frame_rate": 25.0}]]
    from safety_steering_pack.bridge.sampling.sampling import encode_prompt

    ((states, about),) = encode_prompt(Clip(), "a fox", template)
    assert about == {"pooled_output": None, "frame_rate": 25.0}
    assert bool((states[0, 2:] == 0).all())


def test_fit_safety_direction_makes_a_vector_that_fits_the_model(whole, wan, comfy_in_process):
    fit = importlib.import_module("safety_steering_pack.nodes.research.fit_safety_direction").FitSafetyDirection
    check = importlib.import_module("safety_steering_pack.bridge.models.vector_fit")
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
        assert set(vector.detectors.categories) == {"violence", "drugs", "all"}
        assert picture.ndim == 4
        assert float(picture.std()) > 0
        rows = json.loads(table)
        assert {row["tokens"] for row in rows} == {"differing"}
        assert len(rows) == 5 * 3 * 2
        assert {row["n_unsafe"] for row in rows if row["category"] == "all"} == {4}
        texts = [row for row in rows if row["hook_point"] == "conditioning" and row["category"] == "all"]
        assert all(row["auc"] == 1.0 for row in texts)  # one word is the whole difference


def test_a_fit_reads_diverse_harmless_prompts_with_the_clip(whole, wan, monkeypatch):
    benign = importlib.import_module("safety_steering_pack.bridge.capture.benign")
    fit = importlib.import_module("safety_steering_pack.nodes.research.fit_safety_direction").FitSafetyDirection
    captions = tuple(f"a {color} bird on a {place}" for color in ("red", "blue", "grey") for place in SCENES)
    monkeypatch.setattr(benign, "bundled_captions", lambda: captions)
    own = PromptSet((PromptRow("mine", "benign", safe="a teapot on a shelf", split="train"),))
    clip = Clip()
    node = fit.PREPARE_CLASS_CLONE({})
    how = {"method": {"method": "mean_difference"}}
    vector = node.execute(whole, False, False, 0, "", 3, **how, clip=clip, model=wan, benign_prompts=own).args[0]
    assert set(clip.texts) >= {*captions, "a teapot on a shelf"}
    assert vector.detectors.benign == 8 + len(captions) + 1
    assert vector.info.suggestion.false_alarm > 0
    assert node.execute(whole, False, False, 0, "", 3, **how).args[0].info.suggestion.false_alarm == 0


def check_shape(wan):
    return importlib.import_module("safety_steering_pack.bridge.models.model_map").read_shape(wan.model.diffusion_model)


def test_a_folder_name_stays_inside_the_output_directory(comfy_in_process):
    folders = importlib.import_module("safety_steering_pack.bridge.folders")
    assert folders.activations_path("mine").name == "mine"
    for wrong in ("", "..", "../other", "/x", "a\nb"):
        with pytest.raises(SafetySteeringError, match="Give a plain name"):
            folders.activations_path(wrong)
