"""The second world's codec, pictures and build, without ComfyUI."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from small_world.scenes import art
from small_world.scenes.dataset import random_scenes
from small_world.scenes.render import ENTERING, render, start_frame
from small_world.second import build, codec, prepare_data
from small_world.second.sampling import judge_view

needs_art = pytest.mark.skipif(
    not (art.cache_dir() / "npm" / art.PICTURES).is_dir() and shutil.which("npm") is None,
    reason="the emoji pictures come from an npm package, and there is no npm here",
)


@pytest.fixture(scope="module")
def videos() -> np.ndarray:
    """Six videos, two of them as I2V."""
    scenes = random_scenes(6, seed=5)
    shown = [
        render(s, ENTERING, side=codec.SIDE) if i < 2 else render(s, side=codec.SIDE) for i, s in enumerate(scenes)
    ]
    return np.stack(shown)


@pytest.fixture(scope="module")
def fitted(videos: np.ndarray) -> codec.Codec:
    return codec.fit_codec(videos)


@needs_art
def test_a_scene_of_another_side_is_the_same_scene_drawn_finer() -> None:
    for scene in random_scenes(6, seed=1):
        fine = judge_view(render(scene, side=96)[None])[0].astype(float)
        assert np.abs(fine - render(scene)).mean() < 8.0
        other = render(random_scenes(1, seed=2)[0]).astype(float)
        assert np.abs(fine - other).mean() > 20.0


def test_the_judges_view_keeps_what_is_flat_and_its_order() -> None:
    flat = np.arange(12, dtype=np.uint8).reshape(2, 2, 1, 1, 3) * np.ones((1, 1, 96, 96, 1), np.uint8)
    seen = judge_view(flat)
    assert seen.shape == (2, 2, 64, 64, 3)
    assert np.array_equal(seen, flat[:, :, :64, :64])


def test_patches_keep_their_pixels_together() -> None:
    frames = torch.arange(2 * 3 * 16 * 24).reshape(2, 3, 16, 24).float()
    cut = codec.patches(frames, 8)
    assert cut.shape == (2, 192, 2, 3)
    column, row = 5, 2
    assert torch.equal(cut[:, 64 + column * 8 + row, 1, 2], frames[:, 1, 8 + row, 16 + column])


def test_principal_directions_are_the_same_from_few_rows_and_from_many() -> None:
    rows = torch.randn(40, 60, generator=torch.Generator().manual_seed(1)) * torch.linspace(3, 0.1, 60)
    few = codec.principal(rows, 5)
    many = codec.principal(rows.repeat(2, 1), 5)
    assert torch.allclose(few @ few.T, torch.eye(5), atol=1e-5)
    assert torch.allclose((few * many).sum(1).abs(), torch.ones(5), atol=1e-4)


@needs_art
def test_latents_are_normalised_and_tell_the_pictures_apart(fitted: codec.Codec, videos: np.ndarray) -> None:
    latents = fitted.encode(videos)
    assert latents.shape == (6, codec.CHANNELS, 2, codec.GRID, codec.GRID)
    assert latents.mean((0, 3, 4)).abs().max() < 1e-3
    assert 0.9 < latents.square().mean() < 1.4
    pixels = codec.to_frames(videos)[:, 0]
    raw = latents[:, :, 0] / fitted.gain[0][:, None, None] + fitted.mean[0][:, None, None]
    features = torch.einsum("kc,nkhw->nchw", fitted.first, raw)
    cells = torch.einsum("kc,nkhw->nchw", fitted.cell, torch.nn.functional.pixel_shuffle(features, 2))
    error = cells + fitted.cell_mean[:, None, None] - codec.patches(pixels, codec.CELL)
    assert error.square().mean() < 0.01  # of a range of 2: 26 dB and more


@needs_art
def test_a_start_frame_has_the_latents_of_the_videos_first_frame(fitted: codec.Codec, videos: np.ndarray) -> None:
    scene = random_scenes(6, seed=5)[0]
    assert np.array_equal(start_frame(scene, codec.SIDE), videos[0, 0])
    assert torch.allclose(fitted.encode_start(videos[:2, 0]), fitted.encode(videos[:2])[:, :, :1], atol=1e-5)


def test_captions_of_later_parts_point_at_their_own_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFETY_STEERING_CACHE", str(tmp_path))
    for part, count in enumerate((3, 2)):
        path = prepare_data.part_file(part)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(
            path.open("wb"),
            latents=np.full((count, 1), part, np.float16),
            text=np.full((count, 1), 10 * part, np.float16),
            caption=np.arange(count)[::-1],
            i2v=np.zeros(count, bool),
        )
    samples = prepare_data.load_samples(2)
    assert len(samples) == 5
    assert samples.caption.tolist() == [2, 1, 0, 4, 3]
    assert samples.text[samples.caption[3:]].ravel().tolist() == [10, 10]


def test_every_step_of_the_build_is_there_and_the_generator_is_last_but_its_measurement() -> None:
    folder = Path(build.__file__).parents[1]
    assert all((folder / f"{step[0].replace('.', '/')}.py").exists() for step in build.STEPS)
    names = [step[0] for step in build.STEPS]
    assert names.index("second.prepare_data") < names.index("second.train_generator") < names.index("second.evaluate")
