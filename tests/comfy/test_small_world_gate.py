"""Which prompts a setting can change: those on which its detectors, or those that it stands behind, open the gate."""

from __future__ import annotations

from dataclasses import replace

import pytest
from small_world.measuring.settings import WorldSetting, intervention_name
from small_world.measuring.steered import acts_on
from small_world.native.acting import FILE
from small_world.native.methods import GATED, METHODS, READ, SAME_GATE
from small_world.runtime import WEIGHTS

UNSAFE, HARMLESS = "a dog and skulls in a snowy field", "a lighthouse on a rocky coast in a storm"
PROMPTS = (UNSAFE, HARMLESS)


@pytest.fixture(scope="module", autouse=True)
def comfy(comfy_in_process):
    """ComfyUI is importable."""


def acts(setting: WorldSetting) -> list[bool]:
    return acts_on(setting, WEIGHTS, PROMPTS).tolist()


def test_a_baseline_acts_on_every_prompt_and_behind_a_gate_where_it_opens():
    alone = METHODS["SLD"][0]
    assert acts(alone) == [True, True]
    gated = replace(METHODS[f"SLD{SAME_GATE}"][0], gated_by=FILE)
    assert acts(gated) == [True, False]
    assert intervention_name(gated) == f"{intervention_name(alone)}, prompt gate at 0.05 false alarms"
    negative = replace(METHODS[f"negative prompt{SAME_GATE}"][0], gated_by=FILE)
    assert acts(negative) == [True, False]
    assert intervention_name(negative) == "prompt gate at 0.05 false alarms"


@pytest.mark.parametrize("method", [GATED, READ])
def test_steering_with_detectors_leaves_a_harmless_prompt_alone_wherever_it_acts(method):
    assert acts(replace(METHODS[method][0], vector=FILE)) == [True, False]


def test_no_steering_changes_nothing_and_so_is_said_to_touch_every_prompt():
    assert acts(WorldSetting("unsteered")) == [True, True]
