"""Graphs that a hostile client could submit, for the tests and the demo."""

from __future__ import annotations

import shutil

import pytest
import torch
from guarded import PolicyRule, moved, policy_text
from PIL import Image
from safetensors.torch import save_file
from safety_steering_pack.commands.api_graph import PromptGraph
from safety_steering_pack.safety_steering.files import file_sha256
from steered_graphs import FAMILIES, apply_vector
from tiny.graphs import save_latent
from tiny.models import TINY_MODELS

WAN = FAMILIES["wan"]
SHIFT = 3.0 * 4.0  # the rule's strength in gaps of 4
HOLDING = pytest.approx(SHIFT, rel=1e-3)


OPERATORS = PolicyRule().file_name


def own(guarded, block=2, **settings):
    """The client's own Apply, with the operator's vector file (block 2) or another that the operator made."""
    rule = PolicyRule(hook_points=(f"block.blocks.{block}.image",))
    policy_text(guarded.private, (rule,))
    shutil.copy(guarded.private / rule.file_name, guarded.models / "safety_vectors" / rule.file_name)
    return apply_vector(rule.file_name, norm="none", hook_points=rule.points[0], **settings)


def listed(guarded):
    """The sha256 of the vector files that `own` uses."""
    return [file_sha256(path) for path in sorted((guarded.models / "safety_vectors").glob("wan_block*"))]


def graph_of(steering=None, key="wan", **options):
    graph = PromptGraph()
    sampled = FAMILIES[key].graph(graph, steering, **{"steps": 2, **options})
    saved = save_latent(graph, sampled.samples, "attack")
    return graph, sampled, saved


def check_steered(record):
    assert (record["verdict"], record["decision"]) == ("steered", "delivered")
    assert record["steered_steps"] == record["steps"] > 0
    assert moved(record) == [HOLDING]
    assert len(record["outputs"]) == 1


def loop(graph, **settings):
    ksampler = next(node for node in graph.prompt.values() if node["class_type"] == "KSampler")
    inputs = {name: ksampler["inputs"][name] for name in ("model", "positive", "negative")}
    ksampler["class_type"] = "Hostile_Loop"
    ksampler["inputs"] = {**inputs, "latent": ksampler["inputs"]["latent_image"], **settings}


def pictures(graph, samples):
    """Decoded frames of a latent."""
    vae = graph.add("VAELoader", vae_name=TINY_MODELS["wan_vae"].file_name)
    return graph.add("VAEDecode", samples=samples, vae=vae[0])[0]


def their_picture(guarded, graph):
    """A picture that the client has uploaded."""
    path = guarded.base_directory / "input" / "theirs.png"
    Image.effect_noise((64, 64), 90).convert("RGB").save(path)
    return graph.add("LoadImage", image="theirs.png")[0]


def their_latent(guarded, graph):
    latent = torch.randn(1, 16, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    tensors = {"latent_tensor": latent, "latent_format_version_0": torch.tensor([])}
    save_file(tensors, guarded.base_directory / "input" / "theirs.latent")
    return graph.add("LoadLatent", latent="theirs.latent")[0]


def sampled(graph, **options):
    return WAN.graph(graph, **{"steps": 2, "length": 1, **options}).samples


def last_touch(graph, latent):
    """SamplerCustom over the last ten-thousandth of the noise."""
    sampler = next(node["inputs"] for node in graph.prompt.values() if node["class_type"] == "KSampler")
    sigmas = graph.add("ManualSigmas", sigmas="0.0001, 0.0")
    settings = {"add_noise": True, "noise_seed": 1, "cfg": 1.0}
    links = {name: sampler[name] for name in ("model", "positive", "negative")}
    select = graph.add("KSamplerSelect", sampler_name="euler")
    return graph.add("SamplerCustom", settings | links, sampler=select[0], sigmas=sigmas[0], latent_image=latent)[0]
