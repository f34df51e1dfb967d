"""The stock loaders take every tiny checkpoint, and what they load samples finite, prompt-dependent latents."""

from __future__ import annotations

import pytest
import torch
from comfy_server import ComfyServer
from safetensors.torch import load_file
from safety_steering_pack.commands.api_graph import PromptGraph
from tiny.graphs import Link, flux_t2i, ltxv_t2v, save_latent, wan21_i2v, wan21_t2v, wan22_ti2v
from tiny.models import TINY_MODELS, write_tiny_model

TEXT_TO_X = {"wan21_t2v": wan21_t2v, "wan22_ti2v": wan22_ti2v, "ltxv": ltxv_t2v, "flux": flux_t2i}
LATENT_SHAPES = {
    "wan21_t2v": (1, 16, 3, 8, 8),
    "wan22_ti2v": (1, 48, 3, 8, 8),
    "ltxv": (1, 128, 3, 4, 4),
    "flux": (1, 16, 8, 8),
}


def latents(server: ComfyServer, graph: PromptGraph, samples: Link, name: str) -> torch.Tensor:
    saved = save_latent(graph, samples, name)
    run = server.client.run(graph.prompt).succeeded()
    return load_file(server.output_file(run.outputs[saved.id]["latents"][0]))["latent_tensor"]


@pytest.mark.parametrize("kind", TEXT_TO_X)
def test_a_tiny_model_samples(server: ComfyServer, kind: str) -> None:
    outputs = []
    for prompt in ("a fox in the snow", "a quiet harbour at night"):
        graph = PromptGraph()
        sampled = TEXT_TO_X[kind](graph, prompt=prompt, steps=2)
        outputs.append(latents(server, graph, sampled.samples, kind))
    first, second = outputs
    assert first.shape == LATENT_SHAPES[kind]
    assert torch.isfinite(first).all()
    assert first.std() > 0.1
    assert (first - second).std() > 0.02 * first.std(), "the prompt must matter, or steering it could not be seen"


def test_image_to_video_depends_on_the_start_image(server: ComfyServer) -> None:
    outputs = []
    for colour in (0x203040, 0xE0C060):
        graph = PromptGraph()
        image = graph.add("EmptyImage", width=64, height=64, batch_size=1, color=colour)
        vae = graph.add("VAELoader", vae_name=TINY_MODELS["wan_vae"].file_name)
        sampled = wan21_i2v(graph, image=image[0], vae=vae[0], steps=2)
        outputs.append(latents(server, graph, sampled.samples, "wan21_i2v"))
    assert torch.isfinite(outputs[0]).all()
    assert (outputs[0] - outputs[1]).std() > 0.02 * outputs[0].std()


@pytest.mark.parametrize(("kind", "vae"), [("wan21_t2v", "wan_vae"), ("ltxv", "ltxv_vae")])
def test_a_tiny_vae_decodes_to_pictures(server: ComfyServer, kind: str, vae: str) -> None:
    graph = PromptGraph()
    sampled = TEXT_TO_X[kind](graph, steps=2)
    loader = graph.add("VAELoader", vae_name=TINY_MODELS[vae].file_name)
    decoded = graph.add("VAEDecode", samples=sampled.samples, vae=loader[0])
    graph.add("SaveImage", images=decoded[0], filename_prefix=f"decoded/{kind}")
    run = server.client.run(graph.prompt).succeeded()
    frames = server.output_files(run)
    assert len(frames) == {"wan21_t2v": 9, "ltxv": 17}[kind]
    assert all(frame.stat().st_size > 500 for frame in frames), "flat grey frames compress to almost nothing"


def test_the_checkpoint_of_the_ltxv_template_loads(server: ComfyServer) -> None:
    graph = PromptGraph()
    loader = graph.add("CheckpointLoaderSimple", ckpt_name=TINY_MODELS["ltxv_checkpoint"].file_name)
    latent = graph.add("EmptyLTXVLatentVideo", width=64, height=64, length=9, batch_size=1)
    decoded = graph.add("VAEDecode", samples=latent[0], vae=loader[2])
    graph.add("PreviewImage", images=decoded[0])
    server.client.run(graph.prompt).succeeded()


def test_the_same_seed_writes_the_same_file(comfy_in_process, tmp_path) -> None:
    first = write_tiny_model("wan21_t2v", tmp_path / "a.safetensors", seed=3)
    again = write_tiny_model("wan21_t2v", tmp_path / "b.safetensors", seed=3)
    other = write_tiny_model("wan21_t2v", tmp_path / "c.safetensors", seed=4)
    assert first.read_bytes() == again.read_bytes() != other.read_bytes()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_a_model_loads_in_another_precision(comfy_in_process, dtype: torch.dtype) -> None:
    patcher = comfy_in_process.diffusion_model(TINY_MODELS["wan21_t2v"].file_name, dtype=dtype)
    assert patcher.model.diffusion_model.blocks[0].self_attn.q.weight.dtype == dtype
