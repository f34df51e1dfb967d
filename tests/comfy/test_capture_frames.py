"""Per-frame pooling in each video family: the frames are those of the latent, and together they are the video."""

from __future__ import annotations

import pytest
import torch
from family_cases import CASES
from family_cases.harness import Family
from family_cases.runs import run

# case -> how many of its latent frames are generated; the tiny latents have three
FRAMES = {
    "wan": 3,
    "wan-2.2-ti2v-start-frame": 2,
    "wan-reference-prefix": 3,
    "wan-scail": 3,
    "ltxv": 3,
    "ltxv-start-frame": 2,
    "ltx2": 3,
    "hunyuan-video": 3,
    "hunyuan-video-start-frame": 2,
    "mochi": 3,
    "cosmos1": 3,
    "kandinsky5-start-frame": 2,
}


def captured(family, points, by_frame):
    from safety_steering_pack.bridge.capture.collect import Capture, capture_source

    source = capture_source(family.patcher, points, (0.0, 1.0), family.case.states_width)
    capture = Capture(source, by_frame=by_frame)
    run(family.case, capture.attach(family.patcher), cfg=1.0)
    return capture.states


@pytest.mark.parametrize("name", FRAMES)
def test_frames_together_are_the_video(comfy_in_process, name):
    family = Family(CASES[name])
    points = tuple(point for point in family.points if point.endswith(".image"))
    frames, whole = (captured(family, points, by_frame) for by_frame in (True, False))
    for point in points:
        pooled = frames[point].pooled[:, 0]
        seen = pooled[~pooled.isnan().any(dim=1)]  # frames that are given hold no generated token
        assert len(seen) == FRAMES[name] * len(whole[point].pooled)
        torch.testing.assert_close(seen.mean(dim=0), whole[point].pooled[:, 0].mean(dim=0), rtol=1e-4, atol=1e-5)
        assert len(seen.unique(dim=0)) == len(seen)


@pytest.mark.parametrize("name", ["wan-ar", "flux"])
def test_where_there_are_no_whole_frames_it_is_said(comfy_in_process, name):
    from safety_steering_pack.safety_steering.errors import SafetySteeringError

    family = Family(CASES[name])
    points = tuple(point for point in family.points if point.endswith(".image"))
    with pytest.raises(SafetySteeringError, match="does not hold whole frames of a video"):
        captured(family, points, by_frame=True)
