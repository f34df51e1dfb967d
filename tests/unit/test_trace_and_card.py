"""What people are told: the trace and its chart, a vector's card, and the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from safety_steering_pack.commands.main import main
from safety_steering_pack.safety_steering.steering.chart import draw_runs
from safety_steering_pack.safety_steering.steering.trace import (
    ACTED,
    NOT_IN_WINDOW,
    NOTHING_FOUND,
    CallTrace,
    HookTrace,
    RunTrace,
)
from safety_steering_pack.safety_steering.vectors.card import describe
from safety_steering_pack.safety_steering.vectors.file import save_vector
from safety_steering_pack.safety_steering.vectors.vector import Suggestion
from tiny.vectors import random_vector

SPACES = {f"block.blocks.{i}.image": (f"tiny/{i}", 6) for i in range(5)}


def hook(point: str, gaps: float, shift: float) -> HookTrace:
    return HookTrace(
        point,
        {"violence": -1.0},
        {"violence": -1 + gaps},
        {"violence": gaps},
        shift,
        1.0,
        {"violence": 3.1},
        moved=2 * shift,
    )


@pytest.fixture
def trace() -> RunTrace:
    """Three noise levels; the model is called twice at the first, and the last lies outside the window."""
    one, two = hook("conditioning", 1.0, 0.1), hook("conditioning", -2.0, 0.3)
    rows = {"positive": 1, "negative": 1}
    calls = (
        CallTrace(1.0, rows, (one,)),
        CallTrace(1.0, rows, (one,)),
        CallTrace(0.5, rows, (two,)),
        CallTrace(0.1, rows, note="outside the window"),
    )
    how = {"gate": "pooled", "threshold": -2.5}
    return RunTrace(ACTED, {"strength": 1.0, "intervention": how}, calls, warnings=("other weights",))


def test_the_summary_counts_noise_levels_and_averages_sizes(trace):
    assert (trace.steps, trace.steered_steps) == (3, 2)
    found = "Found violence in this prompt (3.1 x the harmless spread)."
    moved = "Moved the prompt's states by 60% of their size in 2 of 3 steps."
    assert trace.summary() == f"{found} {moved}"
    assert replace(trace, settings={"intervention": {"gate": "off"}}).summary() == moved


def test_several_findings_are_listed_and_what_lies_within_the_gate_is_not(trace):
    found = {"gore": 2.6, "drugs": 4.0, "violence": 2.4}
    call = CallTrace(1.0, {}, (replace(trace.calls[0].hooks[0], found=found),))
    assert replace(trace, calls=(call,)).summary().startswith("Found drugs and gore in this prompt (4.0 x")


def test_what_is_found_by_the_direction_of_all_categories_is_named_in_words(trace):
    def told(**found: float) -> str:
        call = CallTrace(1.0, {}, (replace(trace.calls[0].hooks[0], found=found),))
        return replace(trace, calls=(call,)).summary()

    assert told(all=4.0).startswith("Found something unsafe in this prompt (4.0 x the harmless spread).")
    assert told(all=4.0, gore=3.0).startswith("Found gore in this prompt (4.0 x")


def test_a_run_that_found_nothing_says_so(trace):
    still = replace(trace, status=NOTHING_FOUND)
    assert still.summary() == "Found nothing unsafe in this prompt: left as it is, bit for bit."
    assert (still.succeeded, trace.succeeded, replace(trace, status=NOT_IN_WINDOW).succeeded) == (True, True, False)


def test_several_hook_points_are_counted():
    call = CallTrace(1.0, {}, (hook("block.blocks.1.image", 1, 0.1), hook("block.blocks.2.image", 1, 0.1)))
    assert "at 2 hook points" in RunTrace(ACTED, {}, (call,)).summary()


def test_a_run_that_did_not_act_says_why():
    trace = RunTrace(NOT_IN_WINDOW, {}, reason="the sampler never called the model.")
    assert trace.summary() == "Nothing was steered: the sampler never called the model."


def test_a_trace_is_plain_data(trace):
    data = json.loads(json.dumps(trace.as_dict()))
    assert data["summary"] == trace.summary()
    assert data["calls"][2]["hooks"][0]["after"] == {"violence": -3.0}
    assert data["calls"][3] == {
        "sigma": 0.1,
        "rows": {"positive": 1, "negative": 1},
        "hooks": [],
        "note": "outside the window",
    }


def test_the_chart_has_a_row_a_run_and_colour_where_something_was_measured(trace):
    idle = RunTrace(NOT_IN_WINDOW, {}, reason="the run went from sigma 0.2 to 0.")
    one, two, quiet = draw_runs([trace]), draw_runs([trace, idle]), draw_runs([idle])
    assert one.dtype == np.uint8
    assert one.shape[2] == 3
    assert (two.shape[0], two.shape[1]) == (2 * one.shape[0], one.shape[1])

    def coloured(picture: np.ndarray) -> int:
        spread = picture.max(axis=2).astype(int) - picture.min(axis=2)
        return int((spread > 60).sum())

    assert coloured(one) > coloured(quiet) > 0


def test_a_chart_of_two_categories_shows_both(trace):
    both = HookTrace("conditioning", {"a": 0.0, "b": 1.0}, {"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 1.0}, 0.1, 1.0)
    picture = draw_runs([RunTrace(ACTED, {}, (CallTrace(1.0, {}, (both,)), CallTrace(0.5, {}, (both,))))])
    assert not np.array_equal(picture, draw_runs([trace]))


def test_the_card_tells_what_is_known_and_leaves_out_the_rest():
    vector = random_vector(SPACES, categories=("violence", "gore"), family="wan")
    card = describe(vector)
    assert card.splitlines()[:5] == [
        "native: made from wan itself, for it alone",
        "categories: violence, gore",
        "mix: violence=1, gore=1",
        "recommended: clamp at block.blocks.0.image, strength 6: the usual settings for vectors of this kind, not "
        "measured on this model",
        "settings: norm token, gate pooled at -4 std, window 0 to 1, branch both",
    ]
    assert "gap: estimated" in card
    assert "block.blocks.0.image, block.blocks.1.image, block.blocks.2.image and 2 more" in card
    assert "measured on: no model: try it carefully" in card
    assert "validation AUC" not in card
    suggestion = Suggestion(2.5, ("block.blocks.1.image",), "clamp", gate="off", basis="calibrated", basis_n=64)
    measured = vector.with_info(validation_auc={"gore": 0.987}, validated_on=("wan2.1-1.3b",), suggestion=suggestion)
    card = describe(measured)
    assert "validation AUC: gore 0.99" in card
    assert "measured on: wan2.1-1.3b" in card
    assert "recommended: clamp at block.blocks.1.image, strength 2.5: calibrated on a model that" in card
    assert "settings: norm token, gate off, window 0 to 1, branch both" in card


@pytest.mark.parametrize(
    ("kind", "model", "words"),
    [
        ("source", "SmolLM2", "portable: found in SmolLM2, works for any model after a one-minute fit"),
        ("native", "Wan 1.3B", "native: made from Wan 1.3B itself, for it alone"),
        ("transferred", "", "carried: a portable vector, fitted to tiny/0 on harmless captions"),
    ],
)
def test_the_card_begins_with_what_the_vector_fits(kind, model, words):
    card = describe(random_vector(SPACES).with_info(kind=kind, model_name=model, family=""))
    assert card.splitlines()[0] == words
    assert ("recommended: Transfer chooses the settings for your model" in card) == (kind == "source")


def test_the_command_line_prints_a_card_or_one_sentence(tmp_path, capsys):
    vector = random_vector(SPACES)
    assert main(["inspect", str(save_vector(vector, tmp_path / "a.safetensors"))]) == 0
    assert capsys.readouterr().out == f"{describe(vector)}\n"
    (tmp_path / "b.safetensors").write_bytes(b"nothing of the kind")
    assert main(["inspect", str(tmp_path / "b.safetensors")]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("'b.safetensors' is not a complete safetensors file")
    assert len(printed.err.splitlines()) == 1
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:-8])
    assert main(["inspect", str(tmp_path / "cut.safetensors")]) == 1
    assert capsys.readouterr().err.startswith("cut.safetensors: not a readable safetensors file")
    assert main(["inspect", str(tmp_path / "c.safetensors")]) == 1
    assert capsys.readouterr().err.startswith(f"There is no file or folder {tmp_path / 'c.safetensors'}")


def test_python_dash_m_works_from_the_packs_folder(repo_root, tmp_path):
    path = save_vector(random_vector(SPACES), tmp_path / "a.safetensors")
    command = [sys.executable, "-m", "safety_steering", "inspect", str(path)]
    done = subprocess.run(command, cwd=repo_root, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("native: made from tiny/0 itself")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-16"])
def test_a_terminal_of_any_encoding_is_printed_to(repo_root, tmp_path, encoding):
    """Categories and file names that the terminal lacks are shown as escapes, on stdout and on stderr."""
    vector = random_vector(SPACES, categories=("\u66b4\u529b", "nudit\u00e9"))
    path = save_vector(vector, tmp_path / "a.safetensors")
    environment = {**os.environ, "PYTHONIOENCODING": encoding}

    def run(*arguments: str) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "safety_steering", *arguments]
        done = subprocess.run(command, cwd=repo_root, capture_output=True, env=environment, check=False)
        return done.returncode, done.stdout.decode(encoding), done.stderr.decode(encoding)

    code, told, complaint = run("inspect", str(path))
    assert (code, complaint.strip()) == (0, "")
    assert told.count("\u66b4\u529b" if encoding.startswith("utf") else "\\u66b4\\u529b") >= 1
    code, told, complaint = run("inspect", str(tmp_path / "\u66b4\u529b.safetensors"))
    assert (code, told.strip()) == (1, "")
    assert "There is no file or folder" in complaint
    assert "Traceback" not in complaint
