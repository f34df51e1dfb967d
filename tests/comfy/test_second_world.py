"""The second generator in the real ComfyUI: its training forward pass, stock loaders, sampling, and resuming."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_world.measuring.sampling import Sampling
from small_world.second import codec as codecs
from small_world.second import model as models
from small_world.second import sampling, train_decoder, train_generator, vae
from small_world.second.prepare_data import Samples
from small_world.second.text import LENGTH, WIDTH
from tiny.vectors import vector_for

TINY = {"hidden_size": 128, "num_heads": 1, "depth": 1, "depth_single_blocks": 1}


def random_codec() -> codecs.Codec:
    """A codec of random orthonormal projections: as good as a fitted one for what is asked here."""
    generator = torch.Generator().manual_seed(4)

    def rows(count: int, width: int) -> torch.Tensor:
        return torch.linalg.qr(torch.randn(width, count, generator=generator)).Q.T.contiguous()

    cells, channels = codecs.CELL_COMPONENTS, codecs.CHANNELS
    rest = torch.randn(channels, 3072, generator=generator) / 50
    return codecs.Codec(
        cell_mean=0.1 * torch.randn(192, generator=generator),
        cell=rows(cells, 192),
        first=rows(channels, 4 * cells),
        rest=rest,
        known=torch.zeros(channels, channels),
        offset=torch.zeros(channels),
        mean=torch.randn(2, channels, generator=generator),
        gain=1.0 + torch.rand(2, channels, generator=generator),
    )


def states(prompts: Any) -> tuple[torch.Tensor, None]:
    """Text states without a language model: each prompt its own, the empty one exact zeros."""
    made = [torch.randn(LENGTH, WIDTH, generator=torch.Generator().manual_seed(len(p))) * bool(p) for p in prompts]
    return torch.stack(made), None


@pytest.fixture
def tiny(comfy_in_process: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A tiny untrained model with nothing zero, and a work folder of its own."""
    import comfy.model_management

    monkeypatch.setenv("SAFETY_STEERING_CACHE", str(tmp_path))
    monkeypatch.setattr(comfy.model_management, "in_training", False)
    monkeypatch.setattr(models, "SIZES", models.SIZES | TINY)
    torch.set_num_threads(1)
    torch.manual_seed(3)
    model = models.build()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return model


@pytest.mark.parametrize("i2v", [False, True])
def test_the_training_pass_computes_what_comfyui_computes(tiny: Any, i2v: bool) -> None:
    latents, text, sigma = torch.randn(3, 128, 2, 6, 6), states(["a", "bb", "ccc"])[0], torch.rand(3)
    with torch.no_grad():
        ours = models.velocity(tiny, latents, sigma, text, torch.full((3,), float(i2v)))
        first = torch.zeros(3) if i2v else None
        pooled = torch.zeros(3, models.POOLED)
        theirs = tiny._forward(latents, sigma * 1000.0, text, pooled, guiding_frame_index=first)
        other = models.velocity(tiny, latents, sigma, text, torch.full((3,), float(not i2v)))
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert not torch.allclose(other, theirs, atol=1e-2)


def test_a_start_frame_counts_nothing_in_the_loss(tiny: Any) -> None:
    latents, text = torch.randn(2, 128, 2, 6, 6), states(["a", "bb"])[0]
    noise, sigma, i2v = torch.randn(2, 128, 2, 6, 6), torch.full((2,), 0.5), torch.ones(2)
    other = noise.clone()
    other[:, :, 0] += 1.0
    with torch.no_grad():
        loss, same = (train_generator.flow_loss(tiny, (latents, text, i2v, sigma), n) for n in (noise, other))
        t2v, moved = (train_generator.flow_loss(tiny, (latents, text, 0 * i2v, sigma), n) for n in (noise, other))
    assert loss == same
    assert t2v != moved


def test_stock_loaders_read_the_files_and_the_sampler_keeps_the_start_frame(tiny: Any) -> None:
    codec = random_codec()
    train_generator.export(tiny.state_dict(), 1, 0)
    made = vae.build(codec)
    train_decoder.export(made, {}, 1, 0)
    model, stock = sampling.load_generator(), sampling.load_vae()
    assert type(model.model.diffusion_model).__name__ == "HunyuanVideo"
    frames = np.random.default_rng(1).integers(0, 256, (2, 96, 96, 3), dtype=np.uint8)
    start = sampling.start_latents(stock, frames)
    wanted = codec.encode_start(frames)
    assert torch.allclose(start * vae.latent_scale(), wanted, atol=0.02 * float(wanted.abs().max()))
    how = Sampling(steps=2)
    latents = sampling.generate_latents(model, ["a fox", "an owl"], [1, 2], start, how, states)
    assert latents.shape == (2, 128, 2, 6, 6)
    assert torch.allclose(latents[:, :, :1], start, atol=1e-4)
    videos = sampling.generate(model, stock, ["a fox", "an owl"], [1, 2], how=how, encode=states)
    assert videos.shape == (2, 5, 96, 96, 3)
    assert not np.array_equal(videos[0], videos[1])
    with pytest.raises(ValueError, match="every video needs its own"):
        sampling.generate_latents(model, ["a fox"], [1, 2], None, how, states)


@pytest.mark.parametrize("point", ["conditioning", "block.double_blocks.0.image", "block.single_blocks.0.image"])
def test_it_is_steered_like_any_model_and_its_start_frame_is_left_alone(tiny: Any, point: str) -> None:
    from safety_steering_pack.bridge.steering.apply import apply_steering
    from safety_steering_pack.bridge.steering.settings import SteeringSettings
    from safety_steering_pack.safety_steering.steering.interventions import Intervention

    train_generator.export(tiny.state_dict(), 1, 0)
    model = sampling.load_generator()
    vector = vector_for(model.model.diffusion_model, conditioning_width=WIDTH, reads=True, gap=0.5)

    def latents(strength: float, start: Any) -> torch.Tensor:
        settings = SteeringSettings(strength, (point,), Intervention("add", "none"), window=(0, 1))
        target = apply_steering(model, vector, settings)
        return sampling.generate_latents(target, ["a fox", "an owl"], [1, 2], start, Sampling(steps=2), states)

    plain = sampling.generate_latents(model, ["a fox", "an owl"], [1, 2], None, Sampling(steps=2), states)
    assert torch.equal(latents(0.0, None), plain)
    assert not torch.allclose(latents(4.0, None), plain, atol=1e-3)
    start = torch.randn(2, 128, 1, 6, 6)
    assert torch.allclose(latents(4.0, start)[:, :, :1], start, atol=1e-4)


def test_a_stopped_training_goes_on_as_if_it_had_not_stopped(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(2)
    samples = Samples(
        rng.standard_normal((8, 128, 2, 6, 6)).astype(np.float16),
        rng.standard_normal((4, LENGTH, WIDTH)).astype(np.float16),
        np.arange(8) % 4,
        np.arange(8) % 2 == 0,
    )
    monkeypatch.setattr(train_generator, "load_samples", lambda parts: samples)
    monkeypatch.setattr(train_generator, "SAVE_SECONDS", -1.0)
    arguments = argparse.Namespace(parts=1, seed=5, steps=4, batch=2)
    draw = train_generator.draw_batch
    results = []
    for stops in (False, True):
        monkeypatch.setenv("SAFETY_STEERING_CACHE", str(tmp_path / str(stops)))
        (tmp_path / str(stops) / "second_world").mkdir(parents=True)
        calls = []

        def draw_or_stop(*given: Any, calls: list[int] = calls, stops: bool = stops) -> Any:
            calls.append(1)
            if stops and len(calls) == 3:
                raise KeyboardInterrupt
            return draw(*given)

        monkeypatch.setattr(train_generator, "draw_batch", draw_or_stop)
        if stops:
            with pytest.raises(KeyboardInterrupt):
                train_generator.train(arguments)
        train_generator.train(arguments)
        results.append(torch.load(tmp_path / str(stops) / "second_world" / "generator.pt", weights_only=True))
        assert len(calls) == (5 if stops else 4)
    whole, parts = results
    assert whole["step"] == parts["step"] == 4
    assert all(torch.equal(whole["model"][name], parts["model"][name]) for name in whole["model"])
    assert all(torch.equal(whole["average"][name], parts["average"][name]) for name in whole["average"])


def test_the_decoder_learns_and_its_file_keeps_the_average(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = random_codec()
    monkeypatch.setattr(train_decoder, "load_codec", lambda: codec)
    monkeypatch.setattr(
        train_decoder, "draw_videos", lambda batch, seed, step: np.full((batch, 5, 96, 96, 3), 200, np.uint8)
    )
    losses = []
    measure = train_decoder.decoder_loss

    def noted(*given: Any) -> Any:
        loss, error = measure(*given)
        losses.append(error.item())
        return loss, error

    monkeypatch.setattr(train_decoder, "decoder_loss", noted)
    train_decoder.work_dir().mkdir(parents=True)
    train_decoder.train(argparse.Namespace(steps=12, batch=1, seed=1))
    assert losses[-1] < losses[0]
    state = torch.load(train_decoder.work_dir() / "decoder.pt", weights_only=True)
    loaded = sampling.load_vae().first_stage_model.decoder.state_dict()
    name = next(iter(state["model"]))
    assert torch.allclose(loaded[name].float(), state["average"][f"decoder.{name}"], atol=1e-3)
