"""Evaluate Safety on the small world, in the real ComfyUI: what it makes, that it goes on, and what it refuses."""

from __future__ import annotations

import importlib
import json
import weakref
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safety_steering_pack.safety_steering.errors import NotSteeredError, SafetySteeringError
from safety_steering_pack.safety_steering.evaluation.rates import evaluate
from safety_steering_pack.safety_steering.judges.judge_file import FileJudge, load_classifier
from safety_steering_pack.safety_steering.prompts.prompt_set import PromptRow, PromptSet
from safety_steering_pack.safety_steering.steering.interventions import Intervention
from safety_steering_pack.safety_steering.vectors.file import load_vector
from small_world.models.text import encode_text
from small_world.runtime import JUDGE_FILE, RESULTS, WEIGHTS, load_generator, load_vae
from small_world.scenes.splits import prompt_pairs

CHOSEN = next(
    row["settings"]
    for row in json.loads((RESULTS / "first_direction.json").read_text())["rows"]
    if row["chosen"] and row["task"] == "t2v"
)
PROMPTS = PromptSet(
    tuple(
        PromptRow(f"pair-{i}", pair.category, *pair.prompts, negative="not evaluated", split="test")
        for i, pair in enumerate(prompt_pairs("test", 2, seed=1))
    )
)


class Clip:
    """The small world's text encoder."""

    def tokenize(self, text: str) -> str:
        return text

    def encode_from_tokens_scheduled(self, tokens: str) -> list:
        return [[encode_text([tokens])[0], {}]]


class Watching(FileJudge):
    """The small world's judge, which notes what it is shown and may stop before a video."""

    def __init__(self, stop_at: int = 0) -> None:
        super().__init__(load_classifier(JUDGE_FILE))
        self.seen: list[Any] = []
        self.alive: list[int] = []
        self.prompts: list[str] = []
        self._stop_at = stop_at

    def __call__(self, video: np.ndarray, prompt: str = "", skip_start: bool = False) -> Any:
        self.alive.append(sum(reference() is not None for reference in self.seen))
        self.seen.append(weakref.ref(video))
        self.prompts.append(prompt)
        if len(self.seen) == self._stop_at:
            raise KeyboardInterrupt
        return super().__call__(video, prompt, skip_start)


@pytest.fixture(scope="module")
def world(comfy_in_process: Any) -> SimpleNamespace:
    """The small world's model plain and steered, its VAE, and the modules under test."""
    names = {
        "evaluation": "judging.evaluation",
        "apply": "steering.apply",
        "settings": "steering.settings",
        "prompt_sampling": "sampling.sampling",
    }
    modules = {name: importlib.import_module(f"safety_steering_pack.bridge.{path}") for name, path in names.items()}
    model = load_generator()

    def steer(**changes: Any) -> Any:
        how = Intervention(CHOSEN["kind"], CHOSEN["norm"], CHOSEN["gate"], CHOSEN["threshold"])
        settings = modules["settings"].SteeringSettings(
            CHOSEN["strength"], tuple(CHOSEN["hook_points"]), how, tuple(CHOSEN["window"])
        )
        vector = load_vector(WEIGHTS / CHOSEN["vector"])
        vector = vector.with_mix(CHOSEN["mix"] or vector.mix)
        return modules["apply"].apply_steering(model, vector, replace(settings, **changes))

    sampling = modules["prompt_sampling"].Sampling(
        {"samples": torch.zeros(1, 16, 2, 8, 8)}, "", 8, 3.0, "euler", "simple", seed=4
    )
    return SimpleNamespace(**modules, model=model, steer=steer, vae=load_vae(), sampling=sampling)


def run(world: SimpleNamespace, folder: Any, judge: Any, **changes: Any) -> Any:
    given = {"steered": world.steer(), "prompts": PROMPTS, "sampling": world.sampling} | changes
    with torch.inference_mode():
        models = world.evaluation.Pair(world.model, given["steered"])
        return world.evaluation.evaluate_prompts(
            models, Clip(), world.vae, given["prompts"], given["sampling"], judge, folder
        )


@pytest.fixture(scope="module")
def whole(world: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """An evaluation that nothing disturbed."""
    folder, judge = tmp_path_factory.mktemp("evaluations") / "whole", Watching()
    return SimpleNamespace(folder=folder, judge=judge, cases=run(world, folder, judge))


def verdicts(folder: Any) -> list[dict]:
    lines = (folder / "verdicts.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name != "notes"} for line in lines]


def test_every_pair_is_four_videos_with_one_noise(world: SimpleNamespace, whole: SimpleNamespace) -> None:
    assert [case.label for case in whole.cases] == ["unsafe", "benign"] * 2
    assert len(whole.judge.seen) == 8
    assert whole.judge.prompts[0] == whole.judge.prompts[1] == PROMPTS.rows[0].unsafe
    assert whole.judge.prompts[2] == PROMPTS.rows[0].safe
    assert all(min(case.seconds) > 0 for case in whole.cases)
    # by hand: the second pair's unsafe prompt, plain and steered, and its twin from the same noise
    sampling = world.prompt_sampling
    unsafe, safe = sampling.list_prompts(PROMPTS)[3:5]
    seeds = {sampling.noise_seed(4, prompt.row) for prompt in (unsafe, safe)}
    assert len(seeds) == 1
    judge = FileJudge(load_classifier(JUDGE_FILE))
    for prompt, case in ((unsafe, whole.cases[2]), (safe, whole.cases[3])):
        for model, verdict in ((world.model, case.unsteered), (world.steer(), case.steered)):
            with torch.inference_mode():
                text, none = (sampling.encode_prompt(Clip(), words, None) for words in (prompt.text, ""))
                latent = sampling.sample_prompt(model, text, none, world.sampling, min(seeds))
                video = sampling.decode_video(world.vae, latent)
            expected = judge(video, prompt.text)
            assert verdict.as_dict() == expected.as_dict()
            np.testing.assert_array_equal(verdict.features, expected.features)


def test_its_rows_say_what_was_steered(world: SimpleNamespace, whole: SimpleNamespace) -> None:
    models = world.evaluation.Pair(world.model, world.steer())
    setting = world.evaluation.describe_steering(models, world.sampling, PROMPTS, whole.judge)
    plain, steered = evaluate(whole.cases, setting).rows
    assert plain["asr"] >= steered["asr"]
    assert plain["asr"] > 0.5  # the small world draws what it is asked
    assert (steered["direction"], steered["split"], steered["task"]) == ("native", "test", "t2v")
    assert steered["hook_point"] == ", ".join(CHOSEN["hook_points"])
    assert steered["intervention"].startswith(f"{CHOSEN['kind']}, norm {CHOSEN['norm']}")
    assert steered["strength"] == CHOSEN["strength"]
    json.dumps(steered)


def test_videos_are_not_kept(whole: SimpleNamespace) -> None:
    assert max(whole.judge.alive) <= 1


def test_a_stopped_evaluation_goes_on(world: SimpleNamespace, whole: SimpleNamespace, tmp_path: Any) -> None:
    stopped = Watching(stop_at=6)
    with pytest.raises(KeyboardInterrupt):
        run(world, tmp_path / "stopped", stopped)
    assert len(verdicts(tmp_path / "stopped")) == 5
    with open(tmp_path / "stopped" / "verdicts.jsonl", "a") as file:
        file.write('{"setting": "steered", "pro')  # killed in the middle of a line
    again = Watching()
    cases = run(world, tmp_path / "stopped", again)
    assert len(again.seen) == 4  # the third prompt had one of its two verdicts, and is made again
    key = {(line["setting"], line["prompt"]): line for line in verdicts(tmp_path / "stopped")}
    assert key == {(line["setting"], line["prompt"]): line for line in verdicts(whole.folder)}
    assert [case.id for case in cases] == [case.id for case in whole.cases]
    done = Watching()
    run(world, tmp_path / "stopped", done)
    assert done.seen == []


def test_other_settings_do_not_go_on_in_the_same_folder(world: SimpleNamespace, whole: SimpleNamespace) -> None:
    others = (
        {"sampling": replace(world.sampling, seed=5)},
        {"sampling": replace(world.sampling, steps=9)},
        {"steered": world.steer(strength=CHOSEN["strength"] / 2)},
    )
    for changes in others:
        with pytest.raises(SafetySteeringError, match="verdicts of other settings"):
            run(world, whole.folder, Watching(), **changes)
    stricter = FileJudge(load_classifier(JUDGE_FILE), threshold=0.1)
    with pytest.raises(SafetySteeringError, match="judge differ"):
        run(world, whole.folder, stricter)


def test_what_was_not_steered_is_no_evaluation(world: SimpleNamespace, tmp_path: Any) -> None:
    one = replace(PROMPTS, rows=PROMPTS.rows[:1])
    for changes, said in (
        ({"strength": 0.0}, "Nothing was steered"),
        ({"window": (0.999, 1.0)}, "outside the window"),
    ):
        steered = world.steer(**changes)
        with pytest.raises(NotSteeredError, match=said):
            run(
                world,
                tmp_path / said[:3],
                Watching(),
                steered=steered,
                prompts=one,
                sampling=replace(world.sampling, steps=2),
            )
        assert not (tmp_path / said[:3] / "verdicts.jsonl").exists()


def test_the_two_models_must_be_one(world: SimpleNamespace) -> None:
    pair, steered = world.evaluation.Pair, world.steer()
    with pytest.raises(SafetySteeringError, match="should be unsteered has Apply"):
        pair(steered, steered)
    with pytest.raises(SafetySteeringError, match="no Apply Safety Steering on it"):
        pair(world.model, world.model.clone())
    with pytest.raises(SafetySteeringError, match="The two models are different"):
        pair(load_generator(), steered)


def test_prompts_without_an_unsafe_one_are_refused(world: SimpleNamespace, tmp_path: Any) -> None:
    benign = replace(PROMPTS, rows=(PromptRow("a", "benign", safe="a fox on blue"),))
    with pytest.raises(SafetySteeringError, match="no unsafe one among them"):
        run(world, tmp_path / "benign", Watching(), prompts=benign)
