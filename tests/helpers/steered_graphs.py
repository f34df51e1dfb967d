"""What the steering tests share: random vectors for the tiny models, and graphs that steer and keep the latents."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from comfy_server import ComfyServer
from safetensors.torch import load_file
from safety_steering_pack.commands.api_graph import PromptGraph
from safety_steering_pack.commands.comfy_client import Run
from safety_steering_pack.safety_steering.vectors.detector import LEVELS, Detector, Detectors
from safety_steering_pack.safety_steering.vectors.file import save_vector
from safety_steering_pack.safety_steering.vectors.vector import SafetyVector
from tiny.graphs import (
    Link,
    Sampled,
    Steer,
    cfg_guider,
    flux_t2i,
    ltxv_guide,
    ltxv_i2v,
    ltxv_t2v,
    save_latent,
    wan21_i2v,
    wan21_t2v,
    wan22_i2v,
    wan22_ti2v,
)
from tiny.vectors import random_vector

TEXT_WIDTH = 4096
DEFAULTS: dict[str, Any] = {
    "strength": 2.0,
    "intervention": "add",
    "norm": "token",
    "window_start": 0.0,
    "window_end": 1.0,
    "branch": "both",
    "gate": "off",
    "hook_points": "auto",
}
SAMPLERS = ("KSampler", "SamplerCustomAdvanced")


@dataclass(frozen=True)
class TinyFamily:
    """A tiny model of one family in one task: how its graph is made and where a vector can act."""

    graph: Callable[..., Sampled]
    family: str
    name: str
    width: int
    block_counts: dict[str, int]
    text_space: str
    block: str

    @property
    def reads(self) -> list[str]:
        """The hook points where blocks read the text: in all these families the first list's."""
        (name, count), *_ = self.block_counts.items()
        return [f"cross_attention.{name}.{i}.image" for i in range(count)]

    def vector(self, *, reads: bool = False, **options: Any) -> SafetyVector:
        """A random vector at `conditioning` and at every image stream of every block; it suggests the block `block`.

        reads: also where the blocks read the text.
        """
        blocks = [f"block.{name}.{i}.image" for name, count in self.block_counts.items() for i in range(count)]
        spaces = {name: (f"{self.name}/{name}", self.width) for name in blocks + (self.reads if reads else [])}
        return random_vector(
            {self.block: spaces[self.block], **spaces, "conditioning": (self.text_space, TEXT_WIDTH)},
            family=self.family,
            block_counts=self.block_counts,
            **options,
        )


def _wan(graph: Callable[..., Sampled], channels: int) -> TinyFamily:
    name = f"wan-4x32-{channels}ch"
    return TinyFamily(graph, "wan", name, 32, {"blocks": 4}, "umt5xxl.last", "block.blocks.2.image")


def _ltxv(graph: Callable[..., Sampled]) -> TinyFamily:
    block = "block.transformer_blocks.2.image"
    return TinyFamily(graph, "ltxv", "ltxv-4x32-128ch", 32, {"transformer_blocks": 4}, "t5xxl.last", block)


FAMILIES = {
    "wan": _wan(wan21_t2v, 16),
    "wan_i2v": _wan(wan21_i2v, 36),
    "wan22": _wan(wan22_ti2v, 48),
    "wan22_i2v": _wan(wan22_i2v, 48),
    "ltxv": _ltxv(ltxv_t2v),
    "ltxv_i2v": _ltxv(ltxv_i2v),
    "ltxv_guide": _ltxv(ltxv_guide),
    "flux": TinyFamily(
        flux_t2i,
        "flux",
        "flux-2x128-64ch",
        128,
        {"double_blocks": 2, "single_blocks": 2},
        "t5xxl.last",
        "block.double_blocks.1.image",
    ),
}


def sampler_of(key: str) -> dict[str, Any]:
    """Options for `sample`: KSampler and SamplerCustomAdvanced by turns, so that tests of all families use both."""
    return {"guider": cfg_guider} if list(FAMILIES).index(key) % 2 else {}


def with_detector(vector: SafetyVector, space: str, center: float = 0.0, std: float = 1.0) -> SafetyVector:
    """The vector with a detector along the first channel of the text states, which opens below `center`."""
    axis = torch.zeros(TEXT_WIDTH)
    axis[0] = 1
    one = Detector(axis, torch.tensor(center), torch.tensor(std), torch.zeros(len(LEVELS)))
    found = Detectors("conditioning", space, dict.fromkeys(vector.categories, one), benign=100)
    return replace(vector, detectors=found)


def put_vector(server: ComfyServer, name: str, vector: SafetyVector) -> str:
    """Put a vector into the server's models/safety_vectors; returns the file name for Load Safety Vector."""
    file_name = f"{name}.safetensors"
    save_vector(vector, server.models / "safety_vectors" / file_name, overwrite=True)
    return file_name


@cache
def random_file(server: ComfyServer, key: str, **options: Any) -> str:
    """The file of a family's random vector in the server, put there at first use."""
    name = "_".join([key, *(f"{name}_{value}" for name, value in options.items())])
    return put_vector(server, f"random_{name}", FAMILIES[key].vector(**options))


def apply_vector(file_name: str, **settings: Any) -> Steer:
    """A function that puts Load Safety Vector and Apply Safety Steering on a model link."""

    def apply(graph: PromptGraph, model: Link) -> Link:
        loaded = graph.add("SafetySteering_LoadSafetyVector", vector=file_name)
        chosen = DEFAULTS | settings
        return graph.add("SafetySteering_ApplySafetySteering", chosen, model=model, safety_vector=loaded[0])[0]

    return apply


def steer(server: ComfyServer, key: str, **settings: Any) -> Steer:
    """`apply_vector` with a family's random vector."""
    return apply_vector(random_file(server, key), **settings)


def patch(class_type: str, inputs: dict[str, Any] | None = None, **more_inputs: Any) -> Steer:
    """A function that puts one node between a model link and what follows."""
    return lambda graph, model: graph.add(class_type, inputs, model=model, **more_inputs)[0]


def chain(*steps: Steer) -> Steer:
    """Several of the above, one after the other."""

    def apply(graph: PromptGraph, model: Link) -> Link:
        for step in steps:
            model = step(graph, model)
        return model

    return apply


@dataclass(frozen=True)
class Result:
    """A finished run: its latents, how many hooks were left on the model and, of a steered one, the report."""

    run: Run
    latent: torch.Tensor
    report: list[dict[str, Any]]
    hooks_left: int

    @property
    def trace(self) -> dict[str, Any]:
        """The report of the one Apply Safety Steering in the graph."""
        (trace,) = self.report
        return trace

    @property
    def calls(self) -> list[dict[str, Any]]:
        """The model calls of that trace."""
        return self.trace["calls"]


_nonces = itertools.count()


def run_anew(graph: PromptGraph) -> dict[str, Any]:
    """The prompt, such that its samplers run although core's cache holds the same ones.

    Core keys its cache by all inputs that a prompt gives, and hands a node those it knows.
    """
    for node in graph.prompt.values():
        if node["class_type"] in SAMPLERS:
            node["inputs"]["nonce"] = next(_nonces)
    return graph.prompt


def sample(
    server: ComfyServer, key: str, steering: Steer | None = None, *, fresh: bool = False, **options: Any
) -> Result:
    """Run a family's graph in the server, on the model as earlier prompts left it; `fresh` loads it from its file."""
    if fresh:
        server.client.free()
    graph = PromptGraph()
    sampled = FAMILIES[key].graph(graph, steering, **{"steps": 2, **options})
    saved = save_latent(graph, sampled.samples, "contract")
    trace = graph.add("SafetySteeringDev_Trace", model=sampled.model, after=sampled.samples)
    census = graph.add("SafetySteeringDev_HookCensus", model=sampled.model, after=sampled.samples)
    run = server.client.run(run_anew(graph)).succeeded()
    hooks = json.loads(run.text(census.id))
    return Result(
        run=run,
        latent=load_latent(server, run, saved.id),
        report=json.loads(run.text(trace.id)),
        hooks_left=hooks["forward_hooks"] + hooks["forward_pre_hooks"],
    )


@cache
def plain(server: ComfyServer, key: str, **options: Any) -> torch.Tensor:
    """The latents of a run without any node of this pack's; run once for the same options."""
    return sample(server, key, **options).latent


@cache
def steered_once(server: ComfyServer, key: str, **settings: Any) -> Result:
    """A run steered by the family's random vector with these settings; run once for the same ones."""
    return sample(server, key, steer(server, key, **settings))


def load_latent(server: ComfyServer, run: Run, node_id: str) -> torch.Tensor:
    """The tensor that a SaveLatent node wrote, bit-exact."""
    return load_file(server.output_file(run.outputs[node_id]["latents"][0]))["latent_tensor"]
