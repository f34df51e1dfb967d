"""Calibrate Steering on the tiny Wan, in the real ComfyUI."""

from __future__ import annotations

import importlib
import json

import numpy as np
import pytest
import torch
from captures import die, killed
from safety_steering_pack.safety_steering.calibration.choice import Rule
from safety_steering_pack.safety_steering.calibration.space import read_space
from safety_steering_pack.safety_steering.errors import MismatchError, SafetySteeringError
from safety_steering_pack.safety_steering.judges.verdict import Verdict
from safety_steering_pack.safety_steering.prompts.prompt_set import PromptRow, PromptSet
from tiny.models import TINY_MODELS
from tiny.vectors import random_vector, vector_for

SCENES = ("forest", "street", "kitchen", "beach")
PROMPTS = PromptSet(
    tuple(
        PromptRow(
            f"{split}{i}",
            ("violence", "drugs")[i % 2],
            unsafe=f"a man with a {('weapon', 'syringe')[i % 2]} in the {scene}",
            safe=f"a man with a flower in the {scene}",
            negative=f"a sad man in the {scene}",
            split=split,
        )
        for split in ("train", "validation", "test")
        for i, scene in enumerate(SCENES)
    )
)
BUDGET = 52


class Clip:
    """The development text encoder as a CLIP; keeps what it encodes."""

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


class Judge:
    """Calls a video unsafe by one of its pixels; `stop_at` kills the process before that verdict."""

    name = "one pixel"

    def __init__(self, stop_at: int = 0) -> None:
        self.calls, self.stop_at = [], stop_at

    def __call__(self, video, prompt="", skip_start=False):
        self.calls.append(prompt)
        if len(self.calls) == self.stop_at:
            die()
        assert video.dtype == np.uint8
        assert video.ndim == 4
        value = float(video[-1, 3, 3, 0]) / 255
        return Verdict({"pixel": value}, value > 0.5, kept=value > 0.2, faithful=value > 0.3)


@pytest.fixture(scope="module")
def wan(comfy_in_process):
    return comfy_in_process.diffusion_model(TINY_MODELS["wan21_t2v"].file_name)


@pytest.fixture(scope="module")
def run(comfy_in_process):
    return importlib.import_module("safety_steering_pack.bridge.judging.calibration")


@pytest.fixture(scope="module")
def vae(comfy_in_process):
    import comfy.sd
    import comfy.utils

    path = comfy_in_process.models / "vae" / TINY_MODELS["wan_vae"].file_name
    return comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(path)))


@pytest.fixture(scope="module")
def vector(wan):
    return vector_for(wan.model.diffusion_model, gap=40.0)


@pytest.fixture(scope="module")
def calibrate(run, wan, vae, vector):
    """A function that calibrates into a folder; keyword arguments change the settings."""
    sampling_of = importlib.import_module("safety_steering_pack.bridge.sampling.sampling").Sampling

    def calibrate(folder, judge=None, clip=None, prompts=PROMPTS, vector=vector, budget=BUDGET, tell=print, **changes):
        settings = {"steps": 2, "cfg": 3.0, "sampler_name": "euler", "scheduler": "simple", "seed": 7, "negative": ""}
        sampling = sampling_of({"samples": torch.zeros(1, 16, 2, 4, 4)}, **{**settings, **changes})
        space = read_space(
            tuple(vector.hook_points),
            vector.info.block_counts,
            hook_points="conditioning, 0.5",
            strengths="1, 4",
            windows="0-1",
            interventions="add, clamp",
        )
        tools = run.Tools(wan, clip or Clip(), vae, judge or Judge())
        return run.calibrate_on(
            tools, vector, prompts, sampling, space, budget=budget, rule=Rule(), folder=folder, tell=tell
        )

    return calibrate


@pytest.fixture(scope="module")
def whole(calibrate, tmp_path_factory):
    """A calibration that nothing disturbed, with what it encoded and told."""
    folder, clip, judge, told = tmp_path_factory.mktemp("calibrations") / "whole", Clip(), Judge(), []
    return calibrate(folder, judge, clip, tell=told.append), folder, clip, judge, told


def test_validation_prompts_are_measured_unsteered_first_and_within_the_budget(whole):
    done, folder, clip, judge, told = whole
    wanted = [{row.unsafe, row.safe} for row in PROMPTS.rows if row.split == "validation"]
    assert set(clip.texts) - {""} in [one | other for one in wanted for other in wanted if one != other]
    assert len(judge.calls) == done.calibration.videos <= BUDGET
    lines = [json.loads(line) for line in (folder / "verdicts.jsonl").read_text().splitlines()]
    plain = [line["setting"] == "unsteered" for line in lines]
    assert plain == sorted(plain, reverse=True)
    assert [line["notes"]["acted"] for line in lines] == [not unsteered for unsteered in plain]
    assert "of 52 videos remain" in told[0]
    table = json.loads((folder / "calibration.json").read_text())["rows"]
    assert table == json.loads(json.dumps(list(done.table)))
    assert {row["hook_point"] for row in table[1:]} >= {"conditioning"}


def test_the_suggestion_is_one_that_the_vector_and_model_take(whole, wan, run):
    done, *_ = whole
    suggestion = done.vector.info.suggestion
    assert suggestion.hook_points == done.calibration.chosen.setting.hook_points
    shape = run.patcher_shape(wan)
    assert done.vector.info.validated_on == (shape.name,)
    run.steered(wan, done.vector, done.calibration.chosen.setting)


def test_a_killed_calibration_goes_on_to_the_same_table(whole, calibrate, tmp_path):
    done, *_ = whole
    killed(lambda: calibrate(tmp_path / "killed", Judge(stop_at=20)))
    path = tmp_path / "killed" / "verdicts.jsonl"
    path.write_bytes(path.read_bytes()[:-30])  # and the last line only half written
    judge = Judge()
    again = calibrate(tmp_path / "killed", judge)
    assert list(again.table) == list(done.table)
    assert len(judge.calls) == done.calibration.videos - 18
    assert again.vector.sha256 == done.vector.sha256


def test_an_interrupt_ends_it_and_what_was_judged_is_kept(calibrate, tmp_path):
    import comfy.model_management

    class Interrupts(Judge):
        def __call__(self, *args, **kwargs):
            if len(self.calls) == 5:
                comfy.model_management.interrupt_current_processing()
            return super().__call__(*args, **kwargs)

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        calibrate(tmp_path / "stopped", Interrupts())
    comfy.model_management.interrupt_current_processing(False)
    assert len((tmp_path / "stopped" / "verdicts.jsonl").read_text().splitlines()) == 6


def test_a_second_run_makes_nothing_and_a_larger_budget_only_what_is_missing(whole, calibrate):
    done, folder, *_ = whole
    again, more = Judge(), Judge()
    assert list(calibrate(folder, again).table) == list(done.table)
    assert not again.calls
    larger = calibrate(folder, more, budget=72)
    assert 0 < len(more.calls) < larger.calibration.videos


def test_what_cannot_be_calibrated_gets_one_sentence(whole, calibrate, vector, tmp_path):
    _, folder, *_ = whole
    with pytest.raises(SafetySteeringError, match="verdicts of other settings: sampling differ"):
        calibrate(folder, seed=8)
    with pytest.raises(SafetySteeringError, match="None of the prompts is in the validation split"):
        calibrate(tmp_path / "a", prompts=PROMPTS.in_split("train"))
    with pytest.raises(SafetySteeringError, match="mix has weight 0"):
        calibrate(tmp_path / "b", vector=vector.with_mix({"violence": 0.0}))
    spaces = {"conditioning": ("t5xxl.last", 4096), "block.blocks.1.image": ("x", 32)}
    foreign = random_vector(spaces, family="wan", block_counts={"blocks": 4})
    with pytest.raises(MismatchError, match="Load a vector made for this model"):
        calibrate(tmp_path / "c", vector=foreign)
    assert not (tmp_path / "c").exists()
